// Package nodeinit is PID 1 of a lab node: it makes the node's private root
// from this machine's, writes what an installer would have written, and then
// runs and restarts the node's services (on the control plane also etcd and the
// Kubernetes servers), as systemd does on a real node.
//
// What survives a reboot of the node is listed in persistent; everything else,
// /run first, is new at every start.
package nodeinit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// Run becomes the node whose state directory is given. It returns on failure only.
func Run(state string) error {
	s, err := node.ReadSpec(state)
	if err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return err
	}
	root := filepath.Join(s.Run, "root")
	if err := buildRoot(s, root); err != nil {
		return fmt.Errorf("root of %s: %w", s.Name, err)
	}
	if err := writeFiles(s, root); err != nil {
		return fmt.Errorf("files of %s: %w", s.Name, err)
	}
	if err := pivot(root); err != nil {
		return fmt.Errorf("root of %s: %w", s.Name, err)
	}
	if err := setSysctls(); err != nil {
		return err
	}
	for _, kv := range node.Env() {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return supervise(services(s))
}

// pivot makes root the root and forgets the machine's. Mounts made later are
// shared, so that a container sees the pod namespaces that containerd binds
// under /run/netns.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "oldroot"); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/oldroot", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// setSysctls sets what belongs to the node's own network namespace.
func setSysctls() error {
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/"+name, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mount is unix.Mount with the target made and named in the error.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s %s on %s: %w", kind, source, target, err)
	}
	return nil
}

func bind(source, target string) error {
	return mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, "")
}

// bindReadOnly shows a directory of the cache, which no node may change.
func bindReadOnly(source, target string) error {
	if err := bind(source, target); err != nil {
		return err
	}
	return mount("", target, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
}
