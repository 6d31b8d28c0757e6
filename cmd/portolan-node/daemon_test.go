package main

import (
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// TestDaemonsTakeTheirFlags starts each daemon with --version after its own flags:
// one that does not know a flag refuses before it prints a version.
func TestDaemonsTakeTheirFlags(t *testing.T) {
	for _, d := range daemons("/certs") {
		t.Run(d.Name, func(t *testing.T) {
			out, err := ovsdbtest.Command(d.Argv[0], append(append([]string{}, d.Argv[1:]...), "--version")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), d.Argv[0]) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
