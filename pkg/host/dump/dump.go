// Package dump reads the kernel's lists whole.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// tries is how often a list is asked for.
const tries = 20

// Whole is a list of the kernel's as it was at one moment: one that changed while it was being read is
// asked for again (NLM_F_DUMP_INTR, netlink(7)). On a node where pods come and go the
// list of links is seldom at rest.
func Whole[T any](list func() ([]T, error)) (out []T, err error) {
	for range tries {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}
