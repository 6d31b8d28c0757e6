package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// found is a kernel that has been looked at.
type found struct {
	gateway  host.Gateway
	err      error
	datapath intent.Datapath
}

func (f found) Discover(host.Options) (host.Gateway, error) { return f.gateway, f.err }
func (f found) DetectDatapath() (intent.Datapath, string, error) {
	return f.datapath, "the test says so", nil
}

// sound is a machine on which nothing is wrong.
func sound(t *testing.T) Machine {
	t.Helper()
	root := t.TempDir()
	m := Machine{
		Root: root, Proc: filepath.Join(root, "proc"),
		Kernel: found{datapath: intent.SystemDatapath, gateway: host.Gateway{
			NIC: "eth0", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("172.18.0.2/16")},
			Routes: []host.NICRoute{{Route: host.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("172.18.0.1")}}},
		}},
		Links: func() ([]string, error) { return []string{"lo", "eth0"}, nil },
		Dial:  func(context.Context, string) error { return nil },
		Tool:  func(string) error { return nil }, InPod: true,
		Chains: func(context.Context) ([]string, error) { return []string{"INPUT"}, nil },
	}
	write(t, m.Proc, "sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
	write(t, m.Proc, "sys/net/ipv6/conf/all/disable_ipv6", "0\n")
	return m
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func plan() Plan {
	return Plan{APIServer: "172.18.0.3:6443", ExternalPorts: [2]int{1024, 29999}}
}

func check(t *testing.T, m Machine, p Plan, name string) Check {
	t.Helper()
	for _, c := range Run(t.Context(), m, p) {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %s", name)
	return Check{}
}

func TestSoundMachine(t *testing.T) {
	for _, c := range Run(t.Context(), sound(t), plan()) {
		// What this machine itself is, and has, the test cannot choose.
		if c.Name == "privilege" || c.Name == "clock" || c.Name == "runtime" {
			continue
		}
		if c.State != OK || c.Do != "" || c.Found == "" {
			t.Errorf("%+v", c)
		}
	}
}

// socket is a line of /proc/net/tcp or udp.
func socket(port int, state, inode string) string {
	return fmt.Sprintf("  sl  local_address\n   0: 00000000:%04X 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %s 1 0\n", port, state, inode)
}

// spoiled is one thing that is wrong with a machine, and what is said of it.
type spoiled struct {
	what  string
	spoil func(m *Machine, p *Plan)
	name  string
	state State
	found string
	do    string
}

func nicFindings() []spoiled {
	refusal := &host.Refusal{NIC: "eth0", Reason: "its address 10.0.0.2/24 is a DHCP lease", File: "/etc/x", Text: "static\n", Hint: "Then start again."}
	return []spoiled{
		{"a lease", func(m *Machine, _ *Plan) { m.Kernel = found{err: refusal} }, "nic", Fail, "DHCP lease", "write /etc/x:\nstatic\nThen"},
		{"no NIC", func(m *Machine, _ *Plan) { m.Kernel = found{err: host.ErrNoGateway} }, "nic", Fail, "no gateway NIC", "spec.gateway.interface"},
		{"no route", func(m *Machine, _ *Plan) {
			m.Kernel = found{gateway: host.Gateway{NIC: "eth0", MTU: 1500}}
		}, "nic", Warn, "no default route", "nextHops"},
		{"own bridge", func(m *Machine, _ *Plan) {
			m.Kernel = found{gateway: host.Gateway{NIC: "eth0", Bridge: "br-ex", Resumed: true}}
		}, "nic", OK, "earlier run", ""},
		{"small NIC", func(_ *Machine, p *Plan) { p.MTU = 1500 }, "mtu", Fail, "pods are to get 1500", "1558"},
		{"tiny pods", func(m *Machine, _ *Plan) {
			m.Kernel = found{gateway: host.Gateway{NIC: "eth0", MTU: 1300, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}}
		}, "mtu", Warn, "pods get 1242", "1338"},
		{"userspace", func(m *Machine, _ *Plan) { m.Kernel = found{datapath: intent.UserspaceDatapath} }, "datapath", Warn, "netdev", "modprobe"},
		{"kernel wanted", func(m *Machine, p *Plan) {
			m.Kernel, p.Datapath = found{datapath: intent.UserspaceDatapath}, intent.SystemDatapath
		}, "datapath", Fail, "asks for the kernel's", "modprobe"},
	}
}

func portFindings(t *testing.T) []spoiled {
	return []spoiled{
		{"taken port", func(m *Machine, _ *Plan) {
			write(t, m.Proc, "net/tcp", socket(9410, "0A", "77"))
			write(t, m.Proc, "12/comm", "nginx\n")
			write(t, m.Proc, "12/fd/.keep", "")
			if err := os.Symlink("socket:[77]", filepath.Join(m.Proc, "12/fd/3")); err != nil {
				t.Fatal(err)
			}
		}, "port-9410", Fail, "nginx (process 12)", "stop it"},
		{"our own port", func(m *Machine, _ *Plan) {
			write(t, m.Proc, "net/tcp6", socket(9411, "0A", "78"))
			write(t, m.Proc, "13/comm", "portolan-manage\n")
			write(t, m.Proc, "13/fd/.keep", "")
			if err := os.Symlink("socket:[78]", filepath.Join(m.Proc, "13/fd/3")); err != nil {
				t.Fatal(err)
			}
		}, "port-9411", OK, "portolan-manage", ""},
		{"an established connection", func(m *Machine, _ *Plan) { write(t, m.Proc, "net/tcp", socket(9410, "01", "77")) }, "port-9410", OK, "free", ""},
		{"overlap", func(_ *Machine, p *Plan) { p.ExternalPorts = [2]int{1024, 40000} }, "port-ranges", Fail, "1024-40000", "overlap"},
		{"no range", func(_ *Machine, p *Plan) { p.ExternalPorts = [2]int{} }, "port-ranges", Warn, "any", "externalPortRange"},
		{"dialled node ports", func(m *Machine, _ *Plan) {
			write(t, m.Proc, "sys/net/ipv4/ip_local_port_range", "30000 60999\n")
		}, "port-ranges", Warn, "30000", "reserved"},
		{"reserved node ports", func(m *Machine, _ *Plan) {
			write(t, m.Proc, "sys/net/ipv4/ip_local_port_range", "30000 60999\n")
			write(t, m.Proc, "sys/net/ipv4/ip_local_reserved_ports", "22,30000-32767\n")
		}, "port-ranges", OK, "30000", ""},
	}
}

func otherFindings(t *testing.T) []spoiled {
	return []spoiled{
		{"a Service's address", func(_ *Machine, p *Plan) { p.APIServerInside = true }, "api-server", Fail, "address of Services", "spec.apiServer"},
		{"no answer", func(m *Machine, _ *Plan) {
			m.Dial = func(context.Context, string) error { return errors.New("refused") }
		}, "api-server", Fail, "refused", "every node"},
		{"flannel first", func(m *Machine, _ *Plan) {
			write(t, m.Root, "etc/cni/net.d/05-flannel.conflist", "{}")
			write(t, m.Root, "etc/cni/net.d/10-portolan.conflist", "{}")
		}, "cni-configuration", Fail, "05-flannel.conflist comes first", "remove"},
		{"flannel before us", func(m *Machine, _ *Plan) { write(t, m.Root, "etc/cni/net.d/05-flannel.conflist", "{}") }, "cni-configuration", Warn, "05-flannel", "first file by name"},
		{"multus", func(m *Machine, _ *Plan) {
			write(t, m.Root, "etc/cni/net.d/00-multus.conf", "{}")
			write(t, m.Root, "etc/cni/net.d/10-portolan.conflist", string(cni.Conflist("", cni.Multus)))
		}, "cni-configuration", OK, "multus", ""},
		{"multus over a native configuration", func(m *Machine, _ *Plan) {
			write(t, m.Root, "etc/cni/net.d/00-multus.conf", "{}")
			write(t, m.Root, "etc/cni/net.d/10-portolan.conflist", string(cni.Conflist("", cni.Native)))
		}, "cni-configuration", Fail, "every network twice", "multiNetwork: multus"},
		{"no multus for its configuration", func(m *Machine, _ *Plan) {
			write(t, m.Root, "etc/cni/net.d/10-portolan.conflist", string(cni.Conflist("", cni.Multus)))
		}, "cni-configuration", Fail, "the default network alone", "install Multus"},
		{"links", func(m *Machine, _ *Plan) {
			m.Links = func() ([]string, error) {
				return []string{"cni0", "eth0", "cali1", "cali2", "cali3", "cali4", "cali5"}, nil
			}
		}, "other-links", Warn, "cni0, cali1, cali2, cali3, cali4, and 1 more", "reboot"},
		{"chains", func(m *Machine, _ *Plan) {
			m.Chains = func(context.Context) ([]string, error) { return []string{"FLANNEL-FWD"}, nil }
		}, "other-chains", Warn, "FLANNEL-FWD", "reboot"},
		{"no tools", func(m *Machine, _ *Plan) {
			m.Tool = func(name string) error {
				if name == "nft" {
					return errors.New("not found")
				}
				return nil
			}
		}, "tools", Fail, "missing: nft", "Dockerfile"},
		{"no IPv6", func(m *Machine, p *Plan) {
			p.IPv6 = true
			write(t, m.Proc, "sys/net/ipv6/conf/all/disable_ipv6", "1\n")
		}, "sysctls", Fail, "IPv6 is off", "disable_ipv6=0"},
		{"few watches", func(m *Machine, _ *Plan) { write(t, m.Proc, "sys/fs/inotify/max_user_instances", "128\n") }, "sysctls", Warn, "128", "1024"},
	}
}

func TestFindings(t *testing.T) {
	for _, c := range slices.Concat(nicFindings(), portFindings(t), otherFindings(t)) {
		t.Run(c.what, func(t *testing.T) {
			m, p := sound(t), plan()
			c.spoil(&m, &p)
			got := check(t, m, p, c.name)
			if got.State != c.state || !strings.Contains(got.Found, c.found) || !strings.Contains(got.Do, c.do) || c.do == "" && got.Do != "" {
				t.Errorf("found %+v, wanted %s, %q, %q", got, c.state, c.found, c.do)
			}
		})
	}
}

func TestRuntimeIsReadFromTheProgram(t *testing.T) {
	m := sound(t)
	if c := m.runtime(); c.State != Warn {
		t.Errorf("no runtime: %+v", c)
	}
	write(t, m.Root, "usr/bin/containerd", "no Go program")
	for version, want := range map[string]State{
		"containerd github.com/containerd/containerd 1.5.9~ds1": Fail, "containerd github.com/containerd/containerd 1.6.20~ds1": OK,
		"containerd github.com/containerd/containerd/v2 2.1.4": OK, "?": Warn,
	} {
		m.Version = func(string) (string, error) { return version, nil }
		if c := m.runtime(); c.State != want {
			t.Errorf("%s: %+v", version, c)
		}
	}
}

func TestFailed(t *testing.T) {
	if Failed([]Check{{State: Warn}}) || !Failed([]Check{{State: OK}, {State: Fail}}) {
		t.Error("only fail fails")
	}
}
