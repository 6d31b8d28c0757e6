//go:build kernel

package cni_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

func ipCommand(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestKernelDeviceAtOnce: a device that was made again, and is given again, before
// vswitchd has let go of the last of its name, is the one that vswitchd opens.
func TestKernelDeviceAtOnce(t *testing.T) {
	softDevices(t, "a-0")
	s := deviceServer(t, map[string]string{})
	for n := range 6 {
		id := fmt.Sprintf("once%d", n)
		ns := sandbox(t, id)
		s.succeed(delegated(wire.Add, id, ns, "soft-a-0"))
		index, err := os.ReadFile(filepath.Join(sysfs(), "class/net/sr-a-0/ifindex"))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.TrimSpace(string(index))
		for deadline := time.Now().Add(20 * time.Second); ; {
			got, err := vsctl("get", "interface", "sr-a-0", "ifindex")
			if got = strings.TrimSpace(got); err == nil && got == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("turn %d: vswitchd has device %s open, and sr-a-0 is %s: %v", n, got, want, err)
			}
			<-time.After(10 * time.Millisecond)
		}
		if n%2 == 0 {
			ipCommand(t, "netns", "del", "ptt-"+id) // and the pair with it
		}
		s.succeed(delegated(wire.Del, id, ns, "soft-a-0"))
	}
	if got := devicesAt(t); got != softAtHome {
		t.Error(got)
	}
}

// TestKernelDeviceBoot: records do not outlive the machine's run, and neither does what
// they tell of: of a device's port that a database on the disk still has nothing is left.
func TestKernelDeviceBoot(t *testing.T) {
	softDevices(t, "a-0")
	s := deviceServer(t, map[string]string{})
	s.succeed(delegated(wire.Add, "boot", sandbox(t, "boot"), "soft-a-0"))
	if got := s.left(); !strings.HasPrefix(got, "veths=0 ports=1 ") {
		t.Error(got)
	}
	s.stop()
	if err := os.RemoveAll(filepath.Join(filepath.Dir(s.config.Socket), "devices")); err != nil {
		t.Fatal(err)
	}
	ipCommand(t, "netns", "del", "ptt-boot")
	s = s.again("")
	if got := s.left(); !strings.HasPrefix(got, "veths=0 ports=0 ") {
		t.Error(got)
	}
}
