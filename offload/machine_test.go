package offload

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// files writes a tree; a value that begins with @ is a link's target.
func files(t *testing.T, dir string, tree map[string]string) {
	t.Helper()
	for name, text := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(text, "@"); ok {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type fakeLinks struct {
	driver, offload, mode, encap string
	err                          error
}

func (f fakeLinks) Driver(string) (string, error)    { return f.driver, f.err }
func (f fakeLinks) TCOffload(string) (string, error) { return f.offload, f.err }
func (f fakeLinks) ESwitch(bus, device string) (string, string, string, error) {
	return f.mode, f.encap, "transport", f.err
}
func (f fakeLinks) RouteDevice(netip.Addr) (string, error) { return "rep0", f.err }

func machine(t *testing.T, tree map[string]string, l fakeLinks, shares func() (bool, error)) *Machine {
	dir := t.TempDir()
	files(t, dir, tree)
	if shares == nil {
		shares = func() (bool, error) { return false, errNoDatapath }
	}
	return &Machine{
		Proc: filepath.Join(dir, "proc"), Sys: filepath.Join(dir, "sys"), Modules: filepath.Join(dir, "lib/modules"), Boot: filepath.Join(dir, "boot"),
		links: l, sharing: shares,
	}
}

func TestKernelFacts(t *testing.T) {
	const release = "proc/sys/kernel/osrelease"
	for name, test := range map[string]struct {
		tree   map[string]string
		shares func() (bool, error)
		want   KernelFacts
	}{
		"nothing to be seen": {map[string]string{release: "6.12.0\n"}, nil,
			KernelFacts{"6.12.0", Unknown, Unknown, Unknown, Unknown, Unknown}},
		"modules, some loaded": {map[string]string{
			release: "6.12.0\n", "proc/modules": "openvswitch 200704 2 - Live 0x0\nact_ct 36864 0 - Live 0x0\n",
			"lib/modules/6.12.0/modules.builtin": "kernel/net/sched/act_api.ko\n",
			"lib/modules/6.12.0/modules.dep":     "kernel/net/sched/cls_flower.ko.xz: kernel/net/a.ko\nkernel/net/sched/act_ct.ko.xz:\n",
		}, nil, KernelFacts{"6.12.0", Yes, Loadable, Yes, No, Unknown}},
		"a configuration": {map[string]string{
			release: "6.12.0\n", "boot/config-6.12.0": "CONFIG_OPENVSWITCH=m\nCONFIG_NET_CLS_FLOWER=y\n# CONFIG_NET_TC_SKB_EXT is not set\nCONFIG_NET_ACT_CT=m\n",
		}, nil, KernelFacts{"6.12.0", Loadable, Yes, Loadable, No, No}},
		"the datapath shares": {map[string]string{release: "6.12.0\n"}, func() (bool, error) { return true, nil },
			KernelFacts{"6.12.0", Unknown, Unknown, Unknown, Unknown, Yes}},
		"it does not, whatever the configuration says": {map[string]string{release: "6.12.0\n", "boot/config-6.12.0": "CONFIG_NET_TC_SKB_EXT=y\n"},
			func() (bool, error) { return false, nil }, KernelFacts{"6.12.0", No, No, No, No, No}},
	} {
		got, err := machine(t, test.tree, fakeLinks{}, test.shares).Kernel()
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; wanted %+v", name, got, err, test.want)
		}
	}
	if _, err := machine(t, nil, fakeLinks{}, nil).Kernel(); err == nil {
		t.Error("a machine without /proc has a kernel")
	}
}

func TestDevices(t *testing.T) {
	tree := map[string]string{
		"sys/class/net/rep0/phys_switch_id": "c8d3a5\n", "sys/class/net/rep0/phys_port_name": "pf0vf3\n",
		"sys/class/net/rep0/device":           "@../../../devices/pci0000:00/0000:03:00.0",
		"sys/class/net/uplink/phys_switch_id": "c8d3a5\n", "sys/class/net/uplink/phys_port_name": "p0\n",
		"sys/class/net/uplink/device": "@../../../devices/pci0000:00/0000:03:00.0",
		"sys/class/net/nic/device":    "@../../../devices/pci0000:00/0000:04:00.0",
		"sys/class/net/vf/device":     "@../../../devices/pci0000:00/0000:04:10.0",
		"sys/class/net/host/address":  "x", "sys/class/net/genev_sys_6081/address": "x",
		"sys/devices/pci0000:00/0000:03:00.0/subsystem": "@../../../bus/pci", "sys/devices/pci0000:00/0000:04:00.0/subsystem": "@../../../bus/pci",
		"sys/devices/pci0000:00/0000:04:10.0/physfn": "@../0000:04:00.0", "sys/devices/pci0000:00/0000:04:10.0/subsystem": "@../../../bus/pci",
		"sys/bus/pci/x": "",
	}
	for _, test := range []struct {
		name string
		l    fakeLinks
		want Device
	}{
		{"rep0", fakeLinks{driver: "mlx5e_rep", offload: featureOn, mode: "switchdev", encap: "enable"},
			Device{"rep0", Representor, "mlx5e_rep", "c8d3a5", "pf0vf3", "pci/0000:03:00.0", featureOn, "switchdev", "enable", "transport"}},
		{"uplink", fakeLinks{driver: "mlx5_core", offload: featureOff, mode: "switchdev"},
			Device{"uplink", Uplink, "mlx5_core", "c8d3a5", "p0", "pci/0000:03:00.0", featureOff, "switchdev", "", "transport"}},
		{"nic", fakeLinks{driver: "igb", offload: featureNever, mode: "legacy"},
			Device{"nic", Physical, "igb", "", "", "pci/0000:04:00.0", featureNever, "legacy", "", "transport"}},
		{"vf", fakeLinks{driver: "igbvf", offload: featureNever},
			Device{"vf", Function, "igbvf", "", "", "pci/0000:04:10.0", featureNever, "", "", "transport"}},
		{"host", fakeLinks{driver: "veth", offload: featureNever}, Device{Name: "host", Kind: Veth, Driver: "veth", TCOffload: featureNever}},
		{"genev_sys_6081", fakeLinks{driver: "geneve"}, Device{Name: "genev_sys_6081", Kind: Tunnel, Driver: "geneve"}},
		{"nic", fakeLinks{err: unix.EOPNOTSUPP}, Device{Name: "nic", Kind: Physical, Parent: "pci/0000:04:00.0", TCOffload: featureUnknown, Inline: "transport"}},
		{"nowhere", fakeLinks{}, Device{Name: "nowhere", Kind: Missing}},
		{"../../proc", fakeLinks{}, Device{Name: "../../proc", Kind: Missing}},
	} {
		got, err := machine(t, tree, test.l, nil).Device(test.name)
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v; wanted %+v", test.name, got, err, test.want)
		}
	}
	if _, err := machine(t, tree, fakeLinks{err: errors.New("broken")}, nil).Device("rep0"); err == nil {
		t.Error("a driver that cannot be asked is no error")
	}
	m := machine(t, tree, fakeLinks{driver: "mlx5_core", offload: featureOn}, nil)
	if under, err := m.Underlay(netip.MustParseAddr("172.18.0.3")); err != nil || under.Name != "rep0" {
		t.Errorf("underlay %+v, %v", under, err)
	}
}

func TestFeature(t *testing.T) {
	for _, test := range []struct {
		state map[string]ethtool.FeatureState
		want  string
	}{
		{nil, featureUnknown},
		{map[string]ethtool.FeatureState{"hw-tc-offload": {Available: true, Active: true}}, featureOn},
		{map[string]ethtool.FeatureState{"hw-tc-offload": {Available: true}}, featureOff},
		{map[string]ethtool.FeatureState{"hw-tc-offload": {}}, featureNever},
		{map[string]ethtool.FeatureState{"hw-tc-offload": {Available: true, NeverChanged: true}}, featureNever},
	} {
		if got := featureOf(test.state); got != test.want {
			t.Errorf("%+v: got %s, wanted %s", test.state, got, test.want)
		}
	}
}

func attr(kind int, value []byte) []byte { return nl.NewRtAttr(kind, value).Serialize() }

func u32(n uint32) []byte {
	b := make([]byte, 4)
	nl.NativeEndian().PutUint32(b, n)
	return b
}

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func TestDatapathFeatures(t *testing.T) {
	msg := func(features uint32) []byte {
		return join(make([]byte, nl.SizeofGenlmsg+datapathHeader), attr(1, []byte("ovs-system\x00")), attr(datapathFeatures, u32(features)))
	}
	for features, want := range map[uint32]bool{0: false, 3: false, 7: true, 4: true} {
		if got, err := readDatapaths([][]byte{msg(features)}); err != nil || got != want {
			t.Errorf("%#x: got %v, %v", features, got, err)
		}
	}
	if _, err := readDatapaths(nil); !errors.Is(err, errNoDatapath) {
		t.Errorf("got %v", err)
	}
}

// filter is a flower rule's message: an action for each count of packets, all and of
// hardware.
func filter(flags uint32, counts ...[2]uint32) []byte {
	basic := func(n uint32) []byte { return join(make([]byte, 8), u32(n), make([]byte, 4)) }
	var actions []byte
	for i, c := range counts {
		stats := join(attr(nl.TCA_STATS_BASIC, basic(c[0])), attr(nl.TCA_STATS_BASIC_HW, basic(c[1])))
		actions = append(actions, attr(i+1, join(attr(nl.TCA_ACT_KIND, []byte("mirred\x00")), attr(nl.TCA_ACT_STATS, stats)))...)
	}
	options := join(attr(nl.TCA_FLOWER_ACT, actions), attr(nl.TCA_FLOWER_FLAGS, u32(flags)))
	return join(make([]byte, tcHeader), attr(nl.TCA_KIND, []byte("flower\x00")), attr(nl.TCA_OPTIONS, options))
}

func TestFilters(t *testing.T) {
	var c TCCount
	for _, m := range [][]byte{
		filter(flowerInHW, [2]uint32{100, 90}),
		filter(flowerNotInHW, [2]uint32{10, 0}, [2]uint32{7, 0}), // the last action's count is the filter's
		filter(0),
		join(make([]byte, tcHeader), attr(nl.TCA_KIND, []byte("matchall\x00"))),
		join(make([]byte, tcHeader), attr(nl.TCA_KIND, []byte("flower\x00"))), // a chain without rules
	} {
		if err := c.add(m); err != nil {
			t.Fatal(err)
		}
	}
	if want := (TCCount{Filters: 3, InHardware: 1, Refused: 1, HardwarePackets: 90, SoftwarePackets: 17}); c != want {
		t.Errorf("got %+v, wanted %+v", c, want)
	}
	if err := c.add([]byte{1, 2}); err == nil {
		t.Error("a message cut off is read")
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(filter(flowerInHW, [2]uint32{100, 90}))
	f.Fuzz(func(_ *testing.T, msg []byte) {
		var c TCCount
		_ = c.add(msg) // whatever it says, it returns
		_, _ = readDatapaths([][]byte{msg})
	})
}

func TestConnections(t *testing.T) {
	text := `ipv4     2 tcp      6 src=10.244.1.3 dst=10.244.1.4 sport=40000 dport=80 src=10.244.1.4 dst=10.244.1.3 sport=80 dport=40000 [HW_OFFLOAD] mark=0 zone=8 use=3
ipv4     2 tcp      6 src=10.244.1.3 dst=10.244.1.5 sport=40000 dport=80 src=10.244.1.5 dst=10.244.1.3 sport=80 dport=40000 [OFFLOAD] mark=0 zone=8 use=3
ipv4     2 icmp     1 29 src=10.244.1.3 dst=10.244.1.5 type=8 code=0 id=1 src=10.244.1.5 dst=10.244.1.3 type=0 code=0 id=1 mark=0 zone=8 use=2
`
	m := machine(t, map[string]string{"proc/net/nf_conntrack": text}, fakeLinks{}, nil)
	if got, err := m.Connections(); err != nil || got != (Connections{Known: true, All: 3, Hardware: 1, Software: 1}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := machine(t, nil, fakeLinks{}, nil).Connections(); err != nil || got.Known {
		t.Errorf("got %+v, %v", got, err)
	}
}
