//go:build guest

package suite

import (
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// TestDebianHardware: a NIC without an e-switch is refused, and nothing is changed.
func TestDebianHardware(t *testing.T) {
	bin := os.Getenv(binEnv)
	pf, _ := rig.New(t).IGB()
	out, err := try(bin+"/hardware", "-nic", pf.Name, "-ovn-root", "/", "-bin", bin)
	if err == nil || !strings.Contains(out, "no switchdev: its driver igb has no e-switch") {
		t.Errorf("%v: %s", err, out)
	}
	if out, err := try(bin+"/hardware", "-nic", "lo", "-ovn-root", "/", "-bin", bin); err == nil || !strings.Contains(out, `no NIC "lo" with virtual functions is here; there are: `+pf.Name) {
		t.Errorf("%v: %s", err, out)
	}
}
