//go:build guest

package suite

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// TestOwnHardware runs what is for real NICs on one that plays it. All is as on a real
// one but for what only hardware does: here the software path moves the packets, so
// that they are seen at the representors, and the driver has counted none.
func TestOwnHardware(t *testing.T) {
	bin := os.Getenv(binEnv)
	h := rig.New(t).Host("machine", bin)
	h.PrepareOVS()
	n := h.BareNIC(1)
	n.Players(2)
	links := h.Links()
	h.Start("hardware", "sh", "-c", bin+"/hardware -nic "+n.PF+" -ovn-root / -bin "+bin+" -for 5s; echo ended with $?")
	said := func() string {
		text, err := os.ReadFile(h.Path("run/hardware.log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	played := false
	rig.Wait(t, "the NIC to be switchdev, or the run's end", func() error {
		if reps := n.Representors(); len(reps) == 2 && n.Mode() == "switchdev" {
			n.Play()
			played = true
		}
		if !played && !strings.Contains(said(), "ended with") {
			return fmt.Errorf("mode %s, representors %v", n.Mode(), n.Representors())
		}
		return nil
	})
	rig.Wait(t, "the run's end", func() error {
		if !strings.Contains(said(), "ended with") {
			return fmt.Errorf("so far: %s", said())
		}
		return nil
	})
	table := said()
	t.Logf("the table:\n%s", table)
	for line := range strings.Lines(table) {
		failed, of := strings.HasPrefix(line, "FAILED"), strings.Contains(line, "golden test of") || strings.Contains(line, "TC's counters of")
		if failed != of && (failed || strings.HasPrefix(line, "ok")) {
			t.Errorf("%s", strings.TrimSpace(line))
		}
	}
	for _, want := range []string{"resolve netdevsim1.vf0", "attach east", "attach west", "first packet", "TCP", "UDP", "golden test of east", "offloaded:yes of default/east",
		"TC's counters of default/west", "detach east", "NIC as it was", "ended with 1"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table has no %q", want)
		}
	}
	if now := h.Links(); fmt.Sprint(now) != fmt.Sprint(links) {
		t.Errorf("devices before %v, after %v", links, now)
	}
}

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
