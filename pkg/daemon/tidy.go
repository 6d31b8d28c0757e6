package daemon

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Appctl runs ovn-appctl, by which a server is asked and told about its cluster.
func Appctl(args ...string) (string, error) { return tool("ovn-appctl", args...) }

// Tidy removes from the cluster what this server once was: after its disk was lost
// it joined as a new member, and the old one at the same address would be counted
// for ever when a majority is. It waits until the server is a member, and needs to
// be done once after its start. ctl is the server's control socket.
func (m Member) Tidy(ctx context.Context, ctl string, appctl Run) error {
	for {
		status, err := appctl("--timeout=5", "-t", ctl, "cluster/status", m.Database)
		if err == nil && strings.Contains(status, "\nStatus: cluster member\n") {
			for _, id := range former(status, m.Raft(m.Self)) {
				if _, err := appctl("--timeout=5", "-t", ctl, "cluster/kick", m.Database, id); err != nil {
					return err
				}
			}
			return nil
		}
		t := time.NewTimer(askAgain)
		select {
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%s is no member yet: %w: %w", m.Raft(m.Self), ctx.Err(), err)
		case <-t.C:
		}
	}
}

// memberLine is a server in what cluster/status prints: a nickname, the beginning of its
// id, its address, and "(self)" for who is asked.
var memberLine = regexp.MustCompile(`(?m)^    \S+ \(([0-9a-f]{4}) at (\S+)\)( \(self\))?`)

// former lists members that have an address and are not who is asked.
func former(status, address string) []string {
	var out []string
	for _, f := range memberLine.FindAllStringSubmatch(status, -1) {
		if f[2] == address && f[3] == "" {
			out = append(out, f[1])
		}
	}
	return out
}
