//go:build guest

package suite

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// try runs a program in the guest's first namespaces.
func try(argv ...string) (string, error) {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := try(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// long skips a test where not all need run.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes minutes: make e2e SUITE=offload, without SHORT")
	}
}

// newNamespace makes a network namespace for a test.
func newNamespace(t *testing.T, name string) string {
	t.Helper()
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { _, _ = try("ip", "netns", "del", name) })
	return name
}

// talk keeps a TCP connection between two pods busy until stop.
func talk(t *testing.T, from, to *rig.Pod) (stop func()) {
	t.Helper()
	s, err := rig.Talk(from, to, 5001)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
