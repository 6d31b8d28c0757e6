//go:build kernel

package host_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/host"
)

// machineState is what a refusal must leave alone, without what the kernel changes
// by itself while a link comes up.
func machineState(t *testing.T) string {
	t.Helper()
	out := run(t, "ip", "-o", "-4", "addr", "show") + run(t, "ip", "-4", "route", "show", "table", "all")
	for line := range strings.Lines(run(t, "ip", "-o", "link", "show")) {
		f := strings.Fields(line)
		if f[1] == "ovs-netdev:" {
			continue // vswitchd makes it when it comes to it
		}
		out += f[1]
		if i := slices.Index(f, "master"); i > 0 {
			out += " in " + f[i+1]
		}
		out += "\n"
	}
	return out
}

// TestRefusalsSayWhatToDo takes each NIC that cannot be the gateway: the message
// names it, says what was found and what to do, and the machine is as it was.
func TestRefusalsSayWhatToDo(t *testing.T) {
	leased := "ip addr add 192.0.2.1/24 dev d0 valid_lft 3600 preferred_lft 3600"
	fixed := "ip addr add 192.0.2.1/24 dev d0"
	for _, c := range []struct {
		name, nic string
		setup     string
		state     [2]string // a daemon's state file, without the NIC's index, and its text
		says      []string
	}{
		{name: "no such NIC", nic: "eth9", says: []string{"spec.gateway.interface is eth9", "this machine has", "d0"}},
		{name: "no address", nic: "d0", says: []string{"gateway NIC d0 has no address", "spec.gateway.interface in the Cluster file"}},
		{name: "in a Linux bridge", nic: "d0", setup: "ip link add b0 type bridge\nip link set d0 master b0",
			says: []string{"NIC d0", "port of another device", "take the NIC out of it"}},
		{name: "a Linux bridge", nic: "b0", setup: "ip link add b0 type bridge\nip link set b0 up\nip addr add 192.0.2.1/24 dev b0",
			says: []string{"NIC b0", "it is a Linux bridge, which OVS cannot take in", "Move the address to the bridge's NIC"}},
		{name: "DHCP lease", nic: "d0", setup: leased,
			says: []string{"its address 192.0.2.1/24 is a DHCP lease, which ends.", "Write /etc/network/interfaces.d/d0:\nauto d0\niface d0 inet static\n  address 192.0.2.1/24\n", "spec.gateway.takeover to force"}},
		{name: "managed by NetworkManager", nic: "d0", setup: fixed, state: [2]string{"NetworkManager/devices", "[device]\nmanaged=true\n"},
			says: []string{"NetworkManager manages it", "Write /etc/NetworkManager/conf.d/05-portolan.conf:\n[keyfile]\nunmanaged-devices=interface-name:d0"}},
		{name: "managed by systemd-networkd", nic: "d0", setup: fixed, state: [2]string{"systemd/netif/links", "ADMIN_STATE=configured\n"},
			says: []string{"systemd-networkd manages it", "Write /etc/systemd/network/05-portolan.network:\n[Match]\nName=d0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dummies(t, "d0")
			sh(t, "ip link set d0 up\n"+c.setup)
			if strings.Contains(c.setup, "type bridge") {
				t.Cleanup(func() { sh(t, "ip link del b0") })
			}
			dir := t.TempDir()
			if c.state[0] != "" {
				i, err := net.InterfaceByName(c.nic)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(dir, c.state[0], strconv.Itoa(i.Index))
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(c.state[1]), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			before := machineState(t)
			_, err := openKernel(t, dir).Discover(host.Options{Bridge: "br-ex", RunDir: dir, Interface: c.nic})
			if err == nil {
				t.Fatal("taken")
			}
			t.Log(err)
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("does not say %q", part)
				}
			}
			if after := machineState(t); after != before {
				t.Errorf("the refusal changed the machine:\n%s\nwas\n%s", after, before)
			}
		})
	}
}
