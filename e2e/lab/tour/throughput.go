package tour

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/bare"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// Each path is measured in turns with the bare bridge: what else the machine does
// meanwhile then slows both.
const (
	turns    = 4
	streamed = 600 * time.Millisecond // each turn
)

// throughput compares each path with the bare bridge.
func (g *guide) throughput(ctx context.Context) error {
	b, err := bare.Make(ctx, "ovn-worker", g.on)
	defer func() {
		if err := b.Remove(context.WithoutCancel(ctx)); err != nil {
			g.claim(equal("the bare bridge", "removed", "", err))
		}
	}()
	if err != nil {
		return err
	}
	own, err := g.machine(g.east.node)
	if err != nil {
		return err
	}
	paths := []struct {
		name     string
		from, to packets.Place
	}{
		{"pod → pod, same node", g.east.Place, g.east2.Place},
		{"pod → pod, other node", g.east.Place, g.west.Place},
		{"pod → outside", g.east.Place, g.client},
		{"node → pod", own.Place, g.east.Place},
	}
	g.gap()
	fmt.Fprintf(g.out, "  %s\n", g.paint(bold, pad("", 24)+pad("ratio", barWidth+7)+"measured / bare bridge"))
	arrived := 0
	for _, p := range paths {
		rate, reference, err := alternate(ctx, p.from, p.to, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			g.claim(equal(p.name, "a stream that arrives", "", err))
			continue
		}
		arrived++
		fmt.Fprintf(g.out, "  %s\n", compared(p.name, rate, reference))
	}
	g.gap()
	g.claim(equal("paths on which a stream arrives", len(paths), arrived, nil))
	return nil
}

// alternate is the mean rate of a path, and of the bare bridge in the same seconds.
func alternate(ctx context.Context, from, to packets.Place, b *bare.Bridge) (rate, reference float64, err error) {
	for range turns {
		if ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		r, err := packets.Stream(b.Left, b.Right, streamed)
		if err != nil {
			return 0, 0, err
		}
		m, err := packets.Stream(from, to, streamed)
		if err != nil {
			return 0, 0, err
		}
		rate, reference = rate+m/turns, reference+r/turns
	}
	return rate, reference, nil
}

// compared is a path's line: its rate as a part of the reference's. What ratio is
// good enough depends on the path, so that none is claimed.
func compared(what string, rate, reference float64) string {
	ratio := rate / reference
	return fmt.Sprintf("%s  %.2f  %s %s / %s", pad(what, 22), ratio, bar(ratio), bits(rate), bits(reference))
}

const (
	barWidth = 36
	barOne   = 24 // columns that stand for a ratio of 1
)

// bar draws a ratio beside a mark at 1.
func bar(ratio float64) string {
	full := min(max(int(ratio*barOne+0.5), 0), barWidth)
	b := []rune(strings.Repeat("█", full) + strings.Repeat(" ", barWidth-full))
	if full <= barOne {
		b[barOne] = '│'
	}
	return string(b)
}

// bits writes a rate of bytes a second as people write rates of lines.
func bits(rate float64) string {
	if mbit := rate * 8 / 1e6; mbit < 1000 {
		return fmt.Sprintf("%.0f Mbit/s", mbit)
	}
	return fmt.Sprintf("%.2f Gbit/s", rate*8/1e9)
}
