package offload

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Support is whether a kernel has something.
type Support string

// The answers.
const (
	Yes      Support = "yes"      // built in or loaded
	Loadable Support = "loadable" // a module that is there, and not loaded: its first user loads it
	No       Support = "no"
	Unknown  Support = "unknown" // neither lists of modules nor the kernel's configuration can be read
)

// missing is that it can be relied on that there is none.
func (s Support) missing() bool { return s == No }

// KernelFacts is what the kernel has of what offload needs.
type KernelFacts struct {
	Release         string  `json:"release"`
	Datapath        Support `json:"datapath"`        // openvswitch
	Flower          Support `json:"flower"`          // cls_flower
	ConntrackAction Support `json:"conntrackAction"` // act_ct
	TunnelAction    Support `json:"tunnelAction"`    // act_tunnel_key
	// RecircSharing is that TC and the openvswitch module can hand packets to each
	// other between two stages: NET_TC_SKB_EXT, which vswitchd asks the datapath for.
	RecircSharing Support `json:"recircSharing"`
}

// feature is where a kernel feature can be found.
type feature struct {
	module string // "": none of its own
	config string
}

// Machine reads a machine's kernel and devices. Its directories are those of the
// machine, which in a container may be mounted elsewhere.
type Machine struct {
	Proc, Sys string // "/proc", "/sys"
	// Modules holds RELEASE/modules.builtin and modules.dep: "/lib/modules"; Boot the
	// config-RELEASE files: "/boot". "": not to be seen from here.
	Modules, Boot string
	links         links
	sharing       func() (bool, error)
}

// NewMachine is the machine that the process runs on; root is where its file system
// is: "/" or "".
func NewMachine(root string) *Machine {
	return &Machine{
		Proc: "/proc", Sys: "/sys", Modules: filepath.Join("/", root, "lib/modules"), Boot: filepath.Join("/", root, "boot"),
		links: netlinks{}, sharing: datapathShares,
	}
}

// Kernel says what the kernel has.
func (m *Machine) Kernel() (KernelFacts, error) {
	var k KernelFacts
	release, err := os.ReadFile(filepath.Join(m.Proc, "sys/kernel/osrelease"))
	if err != nil {
		return k, fmt.Errorf("kernel: %w", err)
	}
	k.Release = strings.TrimSpace(string(release))
	config, configured := m.config(k.Release)
	loaded := m.lines(filepath.Join(m.Proc, "modules"))
	builtin := m.lines(filepath.Join(m.Modules, k.Release, "modules.builtin"))
	there := m.lines(filepath.Join(m.Modules, k.Release, "modules.dep"))
	find := func(f feature) Support {
		switch {
		case f.module != "" && (loaded[f.module] || builtin[f.module]):
			return Yes
		case f.module != "" && there[f.module]:
			return Loadable
		case configured && config[f.config] == "y":
			return Yes
		case configured && config[f.config] == "m":
			return Loadable
		case configured, len(builtin) > 0 && f.module != "":
			return No
		}
		return Unknown
	}
	k.Datapath = find(feature{"openvswitch", "CONFIG_OPENVSWITCH"})
	k.Flower = find(feature{"cls_flower", "CONFIG_NET_CLS_FLOWER"})
	k.ConntrackAction = find(feature{"act_ct", "CONFIG_NET_ACT_CT"})
	k.TunnelAction = find(feature{"act_tunnel_key", "CONFIG_NET_ACT_TUNNEL_KEY"})
	k.RecircSharing = find(feature{"", "CONFIG_NET_TC_SKB_EXT"})
	shares, err := m.sharing()
	switch {
	case errors.Is(err, errNoDatapath): // nobody has asked the kernel yet
	case err != nil:
		return k, err
	case shares:
		k.RecircSharing = Yes
	default:
		k.RecircSharing = No
	}
	return k, nil
}

// config reads the kernel's configuration where it can be read.
func (m *Machine) config(release string) (map[string]string, bool) {
	open := func(name string) io.ReadCloser {
		f, err := os.Open(name)
		if err != nil {
			return nil
		}
		return f
	}
	var text io.Reader
	if f := open(filepath.Join(m.Proc, "config.gz")); f != nil {
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, false
		}
		text = z
	} else if f := open(filepath.Join(m.Boot, "config-"+release)); f != nil {
		defer f.Close()
		text = f
	} else {
		return nil, false
	}
	out := map[string]string{}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if name, v, ok := strings.Cut(lines.Text(), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			out[name] = v
		}
	}
	return out, lines.Err() == nil && len(out) > 0
}

// lines reads a list of modules: names, or paths of their files, at the beginning of
// each line. What cannot be read lists nothing.
func (m *Machine) lines(file string) map[string]bool {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	out := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(path.Base(strings.TrimSuffix(name, ":")), ".ko")
		out[strings.ReplaceAll(name, "-", "_")] = true
	}
	return out
}

// errNoDatapath is that no kernel datapath exists that could say anything.
var errNoDatapath = errors.New("there is no kernel datapath")

// What is not in package nl of the kernel's openvswitch.h.
const (
	datapathFamily      = "ovs_datapath"
	datapathGet         = 3
	datapathVersion     = 2
	datapathHeader      = 4      // bytes of struct ovs_header
	datapathFeatures    = 5      // OVS_DP_ATTR_USER_FEATURES
	tcRecircSharingFlag = 1 << 2 // OVS_DP_F_TC_RECIRC_SHARING
)

// datapathShares asks the kernel datapath whether vswitchd was given recirculation ids
// that TC shares. Families are listed, for to ask for one by its name loads its module.
func datapathShares() (bool, error) {
	families, err := netlink.GenlFamilyList()
	if err != nil {
		return false, fmt.Errorf("generic netlink families: %w", err)
	}
	for _, f := range families {
		if f.Name == datapathFamily {
			return askDatapaths(f.ID)
		}
	}
	return false, errNoDatapath
}

func askDatapaths(family uint16) (bool, error) {
	req := nl.NewNetlinkRequest(int(family), unix.NLM_F_DUMP)
	req.AddData(&nl.Genlmsg{Command: datapathGet, Version: datapathVersion})
	req.AddRawData(make([]byte, datapathHeader)) // of every datapath
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return false, fmt.Errorf("kernel datapaths: %w", err)
	}
	return readDatapaths(msgs)
}

// readDatapaths tells whether some datapath shares; a node has one.
func readDatapaths(msgs [][]byte) (bool, error) {
	found := false
	for _, m := range msgs {
		if len(m) < nl.SizeofGenlmsg+datapathHeader {
			continue
		}
		attrs, err := attributes(m[nl.SizeofGenlmsg+datapathHeader:])
		if err != nil {
			return false, fmt.Errorf("kernel datapaths: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == datapathFeatures && len(a.Value) == 4 {
				found = true
				if nl.NativeEndian().Uint32(a.Value)&tcRecircSharingFlag != 0 {
					return true, nil
				}
			}
		}
	}
	if !found {
		return false, errNoDatapath
	}
	return false, nil
}

// absent tells an error that means that something is not there.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
