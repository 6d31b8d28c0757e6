package doctor

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/portolan-cni/portolan/pkg/cni"
)

// cniModule is what every runtime calls plugins with.
const cniModule = "github.com/containernetworking/cni"

// runtime finds the container runtime and what it knows of CNI: by the library's
// version that the program records, or, where a distribution has left that out, by
// the program's own.
func (m Machine) runtime() Check {
	c := Check{Name: "runtime", State: OK}
	for _, path := range []string{"usr/bin/containerd", "usr/local/bin/containerd", "usr/bin/crio", "usr/local/bin/crio"} {
		info, err := buildinfo.ReadFile(m.path(path))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		library := ""
		if err == nil {
			for _, d := range info.Deps {
				if d.Path == cniModule {
					library = d.Version
				}
			}
		}
		if library != "" {
			c.Found = fmt.Sprintf("/%s with libcni %s", path, library)
			judge(&c, ofLibrary(library))
			return c
		}
		version, err := m.Version(m.path(path))
		found := versionNumber.FindStringSubmatch(version)
		if err != nil || found == nil || !strings.Contains(path, "containerd") {
			c.State, c.Found = Warn, fmt.Sprintf("/%s %s: which CNI library it has is not recorded", path, version)
			c.Do = "none, if it is containerd 1.6 or newer, or CRI-O 1.23 or newer: CNI 1.0.0 is needed"
			return c
		}
		c.Found = fmt.Sprintf("/%s %s", path, found[0])
		judge(&c, ofContainerd(found[1], found[2]))
		return c
	}
	c.State, c.Found = Warn, "neither containerd nor crio was found"
	c.Do = "none, if the runtime is elsewhere and knows CNI 1.0.0"
	return c
}

var versionNumber = regexp.MustCompile(`\b(\d+)\.(\d+)\.\d+`)

// generation is what a runtime knows of CNI.
type generation int

const (
	before10 generation = iota // not CNI 1.0.0
	cni10                      // not STATUS and GC of 1.1.0
	cni11
)

func ofLibrary(version string) generation {
	switch {
	case strings.HasPrefix(version, "v0."):
		return before10
	case strings.HasPrefix(version, "v1.0."), strings.HasPrefix(version, "v1.1."):
		return cni10
	}
	return cni11
}

func ofContainerd(major, minor string) generation {
	switch {
	case major == "1" && len(minor) == 1 && minor < "6":
		return before10
	case major == "1":
		return cni10
	}
	return cni11
}

func judge(c *Check, g generation) {
	switch g {
	case before10:
		c.State, c.Do = Fail, "install containerd 1.6 or newer, or CRI-O 1.23: CNI 1.0.0 is needed"
	case cni10:
		c.Found += ": it asks no STATUS and GC, so readiness is shown by the configuration file alone"
	}
}

// confDir is what the runtime would ask for a network.
func (m Machine) confDir() Check {
	dir := m.path("etc/cni/net.d")
	c := Check{Name: "cni-configuration", State: OK}
	switch mode := cni.Mode(dir, filepath.Base(cni.DefaultConflist)); mode {
	case cni.Native, cni.Multus:
		c.Found = "/etc/cni/net.d: " + mode
	case cni.Twice:
		c.State, c.Found = Fail, "/etc/cni/net.d: Multus comes first, and our configuration is native: pods get every network twice"
		c.Do = "set multiNetwork: multus in the Cluster file, or remove Multus"
	case cni.Half:
		c.State, c.Found = Fail, "/etc/cni/net.d: our configuration is for Multus, which does not come first: pods get the default network alone"
		c.Do = "install Multus, or set multiNetwork: native in the Cluster file"
	case "none":
		c.Found = "/etc/cni/net.d has no configuration of ours yet"
		if others := m.otherConfigurations(); len(others) > 0 {
			c.State, c.Found = Warn, c.Found+", but "+strings.Join(others, ", ")
			c.Do = "remove them when Portolan is to be the pods' network: the first file by name wins, ours is " + filepath.Base(cni.DefaultConflist)
		}
	default:
		c.State, c.Found = Fail, "/etc/cni/net.d: "+mode+" than ours, so pods get another network"
		c.Do = "remove that file"
	}
	return c
}

func (m Machine) otherConfigurations() []string {
	entries, _ := os.ReadDir(m.path("etc/cni/net.d"))
	var out []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			if e.Name() != filepath.Base(cni.DefaultConflist) && !strings.Contains(e.Name(), "multus") {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// strays are what other plugins leave behind, by the beginning of names.
func strays() []string {
	return []string{"cni0", "flannel.", "cali", "tunl0", "vxlan.calico", "cilium_", "lxc", "weave", "antrea-", "kube-bridge", "dummyvip", "genev_sys_"}
}

// strayChains begin the names of their nftables and iptables chains.
func strayChains() []string {
	return []string{"FLANNEL", "cali-", "CILIUM", "OLD_CILIUM", "WEAVE", "KUBE-ROUTER", "ANTREA", "CNI-"}
}

// leftovers looks for devices and chains of other plugins.
func (m Machine) leftovers(ctx context.Context) []Check {
	links := Check{Name: "other-links", State: OK, Found: "no device of another plugin"}
	names, err := m.Links()
	if err != nil {
		links.State, links.Found = Warn, err.Error()
	}
	if found := begun(names, strays()); len(found) > 0 {
		links.State, links.Found = Warn, "devices of another plugin: "+strings.Join(found, ", ")
		links.Do = "remove the plugin, then reboot the node or delete the devices: they may hold addresses and routes of pods"
	}
	chains := Check{Name: "other-chains", State: OK, Found: "no packet filter chain of another plugin"}
	if names, err = m.Chains(ctx); err != nil {
		chains.State, chains.Found = Warn, "nftables: "+err.Error()
	}
	if found := begun(names, strayChains()); len(found) > 0 {
		chains.State, chains.Found = Warn, "chains of another plugin: "+strings.Join(found, ", ")
		chains.Do = "remove the plugin, then reboot the node: its rules may drop or rewrite pods' packets"
	}
	return []Check{links, chains}
}

// begun lists, at most five, the names that begin with one of the beginnings.
func begun(names, beginnings []string) []string {
	var out []string
	for _, n := range names {
		for _, b := range beginnings {
			if strings.HasPrefix(n, b) {
				out = append(out, n)
				break
			}
		}
	}
	if len(out) > 5 {
		out = append(out[:5:5], fmt.Sprintf("and %d more", len(out)-5))
	}
	return out
}

// tools are in Portolan's image; on the machine itself nothing is needed.
func (m Machine) tools() Check {
	c := Check{Name: "tools", State: OK, Found: "not needed on the machine: the image has them"}
	if !m.InPod {
		return c
	}
	var missing []string
	for _, name := range []string{"ovsdb-server", "ovs-vswitchd", "ovn-northd", "ovn-controller", "ovs-ofctl", "ovs-appctl", "ovn-trace", "ovsdb-tool", "nft"} {
		if m.Tool(name) != nil {
			missing = append(missing, name)
		}
	}
	c.Found = "all are in the image"
	if len(missing) > 0 {
		c.State, c.Found, c.Do = Fail, "missing: "+strings.Join(missing, ", "), "build the image as deploy/Dockerfile says"
	}
	return c
}

// sysctls are those that have stopped nodes of other clusters.
func (m Machine) sysctls(p Plan) Check {
	c := Check{Name: "sysctls", State: OK, Found: "as they should be"}
	var found, do []string
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(m.Proc, "sys", name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	if v := read("net/ipv6/conf/all/disable_ipv6"); p.IPv6 && v != "0" {
		c.State = Fail
		found, do = append(found, "IPv6 is off in this kernel"), append(do, "set net.ipv6.conf.all.disable_ipv6=0: the cluster's subnets have IPv6")
	}
	var n int
	if v := read("fs/inotify/max_user_instances"); v != "" {
		if _, err := fmt.Sscan(v, &n); err == nil && n < 256 {
			found, do = append(found, "fs.inotify.max_user_instances is "+v), append(do, "set it to 1024: kubelet and runtime use one for each pod")
		}
	}
	if v := read("net/netfilter/nf_conntrack_max"); v != "" {
		if _, err := fmt.Sscan(v, &n); err == nil && n < 65536 {
			found, do = append(found, "net.netfilter.nf_conntrack_max is "+v), append(do, "set it to 262144: connections of all pods are tracked")
		}
	}
	if len(found) > 0 {
		if c.State == OK {
			c.State = Warn
		}
		c.Found, c.Do = strings.Join(found, "; "), strings.Join(do, "; ")
	}
	return c
}
