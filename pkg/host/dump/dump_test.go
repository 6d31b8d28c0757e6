package dump

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// TestAListThatChangedIsAskedForAgain: what a busy kernel interrupts is no failure.
func TestAListThatChangedIsAskedForAgain(t *testing.T) {
	asked := 0
	got, err := Whole(func() ([]int, error) {
		if asked++; asked < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 || asked != 3 {
		t.Errorf("got %v, %v, asked %d times", got, err, asked)
	}
}
