package tour

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// streamed is how long each stream is measured.
const streamed = 2 * time.Second

// throughput measures each path between two measurements of the bare bridge.
func (g *guide) throughput(ctx context.Context) error {
	b := bare{node: "ovn-worker"}
	defer func() {
		if err := b.remove(context.WithoutCancel(ctx), g); err != nil {
			g.claim(equal("the bare bridge", "removed", "", err))
		}
	}()
	if err := b.make(ctx, g); err != nil {
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
	before, err := packets.Stream(b.left, b.right, streamed)
	if err != nil {
		return err
	}
	g.gap()
	fmt.Fprintf(g.out, "  %s\n", g.paint(bold, pad("", 25)+"ratio to the bare bridge"+strings.Repeat(" ", 14)+"measured / reference"))
	for _, path := range paths {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		rate, err := packets.Stream(path.from, path.to, streamed)
		after, bad := packets.Stream(b.left, b.right, streamed)
		if bad != nil {
			return bad
		}
		g.claim(compared(path.name, rate, (before+after)/2, err))
		before = after
	}
	return nil
}

// compared claims that a stream arrives, and shows its rate as part of the reference's.
func compared(what string, rate, reference float64, err error) claim {
	c := claim{what: pad(what, 22), want: "a stream that arrives", err: err}
	if rate > 0 {
		ratio := rate / reference
		c.got = fmt.Sprintf("%.2f %s %s / %s", ratio, bar(ratio), bits(rate), bits(reference))
		c.want = c.got
	}
	return c
}

// bar draws a ratio with 1 at thirty columns.
func bar(ratio float64) string {
	const one = 30
	full := min(max(int(ratio*one+0.5), 0), one)
	b := strings.Repeat("█", full) + strings.Repeat("░", one-full)
	return pad(b, max(one, utf8.RuneCountInString(b)))
}

// bits writes a rate of bytes a second as people write rates of lines.
func bits(rate float64) string {
	if mbit := rate * 8 / 1e6; mbit < 1000 {
		return fmt.Sprintf("%.0f Mbit/s", mbit)
	}
	return fmt.Sprintf("%.2f Gbit/s", rate*8/1e9)
}
