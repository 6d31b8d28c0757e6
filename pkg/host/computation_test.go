package host

import (
	"testing"
	"time"
)

func TestWaitBeforeClear(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct{ computation, now, want time.Duration }{
		{0, 0, 0},                          // nothing measured, nothing said
		{0, 5000 * ms, 5000 * ms},          // nothing measured: as it is
		{18 * ms, 0, 2000 * ms},            // a small zone
		{18 * ms, 5000 * ms, 2000 * ms},    // more than twice too much
		{300 * ms, 2000 * ms, 4000 * ms},   // too little
		{18 * ms, 2000 * ms, 2000 * ms},    // as it should be
		{300 * ms, 4000 * ms, 4000 * ms},   // as it should be, of a larger zone
		{300 * ms, 7000 * ms, 7000 * ms},   // 4 s would do; 7 s is not twice as much
		{3000 * ms, 2000 * ms, 16000 * ms}, // a large zone
		{time.Hour, 2000 * ms, 64000 * ms}, // bounded
	} {
		if got := WaitBeforeClear(c.computation, c.now); got != c.want {
			t.Errorf("computation %v, now %v: %v, want %v", c.computation, c.now, got, c.want)
		}
	}
}
