package nodeinit

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// persistent directories of a node, kept under its State: on a real node they
// are on its disk. They also take containerd off the overlay, on which its own
// overlays could not stand.
var persistent = []string{"/var/lib/containerd", "/var/lib/kubelet", "/var/lib/etcd", "/var/lib/cni", "/var/lib/portolan",
	"/var/lib/openvswitch", "/var/lib/ovn", "/etc/openvswitch", "/etc/ovn", "/etc/cni", "/opt/cni", "/etc/kubernetes", "/var/log"}

// fakes are kernel settings that kubelet wants and that belong to the whole
// machine: kubelet is shown a file with its value instead of changing them.
var fakes = map[string]string{"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000"}

// buildRoot mounts the node's file system: the machine's root below, a tmpfs
// above, the node's own directories on top.
func buildRoot(s node.Spec, root string) error {
	upper := filepath.Join(s.Run, "upper")
	if err := mount("tmpfs", upper, "tmpfs", 0, ""); err != nil {
		return err
	}
	for _, d := range []string{"up", "work"} {
		if err := os.Mkdir(filepath.Join(upper, d), 0o755); err != nil {
			return err
		}
	}
	if err := mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+"/up,workdir="+upper+"/work"); err != nil {
		return err
	}
	for _, d := range persistent {
		source := filepath.Join(s.State, "fs", d)
		if d == "/var/log" {
			source = s.Logs()
		}
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := bind(source, root+d); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{s.Kube: "/opt/lab/kube", s.Base: "/opt/lab/base"} {
		if err := bindReadOnly(from, root+to); err != nil {
			return err
		}
	}
	if err := bind("/dev", root+"/dev"); err != nil {
		return err
	}
	for _, m := range [][2]string{{"tmpfs", "/run"}, {"tmpfs", "/tmp"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"bpf", "/sys/fs/bpf"}} {
		if err := mount(m[0], root+m[1], m[0], 0, ""); err != nil {
			return err
		}
	}
	if err := mountCgroups(root + "/sys/fs/cgroup"); err != nil {
		return err
	}
	return mountFakes(root)
}

// mountCgroups gives the node the machine's cgroup v1 hierarchies, seen from
// the node's own cgroup namespace.
func mountCgroups(dir string) error {
	if err := mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer f.Close()
	var seen []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Fields(lines.Text())
		if len(field) < 4 || field[2] != "cgroup" || !strings.HasPrefix(field[1], "/sys/fs/cgroup/") {
			continue
		}
		name := filepath.Base(field[1])
		if slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		options := name
		if name == "systemd" {
			options = "none,name=systemd"
		}
		if err := mount("cgroup", filepath.Join(dir, name), "cgroup", 0, options); err != nil {
			return err
		}
		// "cpu,cpuacct" is known by both its names.
		if parts := strings.Split(name, ","); len(parts) > 1 {
			for _, p := range parts {
				if err := os.Symlink(name, filepath.Join(dir, p)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func mountFakes(root string) error {
	dir := root + "/run/lab-sysctl"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, value := range fakes {
		f := filepath.Join(dir, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(f, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(f, root+"/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}
