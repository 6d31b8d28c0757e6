package host

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Computation is the longest time that this ovn-controller has computed flows for:
// its first computation, as a rule, since it must do all of them then. 0: it does
// not run, or has not computed yet.
func (c *Controller) Computation(ctx context.Context) (time.Duration, error) {
	text, err := c.call(ctx, "stopwatch/show", "flow-generation")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		var ms int64
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "Maximum: %d msec", &ms); n == 1 {
			return time.Duration(ms) * time.Millisecond, nil
		}
	}
	return 0, nil
}

// The bounds of WaitBeforeClear.
const (
	waitLeast = 2 * time.Second
	waitMost  = 64 * time.Second
)

// WaitBeforeClear says how long an ovn-controller that is started shall leave the
// flows that it finds (ovn-ofctrl-wait-before-clear), from its longest computation
// and what it is told now (0: nothing). It must suffice to read the southbound
// database and to compute, on a machine on which everything starts at once: one
// second and four computations, which on a busy machine are long themselves. Longer than needed is no more than a delay, of new
// pods on a node whose ovn-controller was started, so the value moves in doublings,
// up at once and down only from twice too much: it is a setting, and no gauge.
func WaitBeforeClear(computation, now time.Duration) time.Duration {
	if computation <= 0 {
		return now
	}
	need := time.Second + 4*computation
	value := waitLeast
	for value < need && value < waitMost {
		value *= 2
	}
	if now > 0 && value <= now && 2*value > now {
		return now
	}
	return value
}
