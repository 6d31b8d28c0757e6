package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/debs"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// imageSize is that of the file system; the file is sparse. What a guest writes is thrown away.
const imageSize = 2 << 30

// left out of the image.
func unwanted() []string {
	return []string{"boot", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/bash-completion", "usr/share/lintian", "usr/share/info",
		"usr/lib/x86_64-linux-gnu/gconv", "usr/lib/systemd"}
}

// files that maintainer scripts would have written.
func configuration() map[string]string {
	return map[string]string{
		"etc/passwd":        "root:x:0:0:root:/root:/bin/bash\ntcpdump:x:100:100::/:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
		"etc/group":         "root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n",
		"etc/hosts":         "127.0.0.1 localhost guest\n::1 localhost\n",
		"etc/hostname":      "guest\n",
		"etc/resolv.conf":   "",
		"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nprotocols: files\nservices: files\n",
	}
}

// alternatives that update-alternatives would have linked.
func alternatives() map[string]string {
	out := map[string]string{"usr/bin/awk": "mawk", "usr/bin/which": "which.debianutils", "etc/mtab": "../proc/self/mounts", "var/run": "/run", "var/lock": "/run/lock",
		"usr/sbin/ovs-vswitchd": "../lib/openvswitch-switch/ovs-vswitchd"}
	for _, tool := range []string{"iptables", "ip6tables"} {
		for _, verb := range []string{"", "-save", "-restore"} {
			out["usr/sbin/"+tool+verb] = "xtables-nft-multi"
		}
	}
	return out
}

// fillImage makes vmlinuz, modules.cpio and root.ext4.
func (b Builder) fillImage(ctx context.Context, dir string, pkgs []debs.Package) error {
	log, err := b.LogFile("guest-image")
	if err != nil {
		return err
	}
	defer log.Close()
	s := b.suite()
	s.Log = log
	tree := filepath.Join(dir, "tree")
	if err := s.Unpack(ctx, pkgs, tree); err != nil {
		return err
	}
	release, err := takeKernel(tree, filepath.Join(dir, "vmlinuz"))
	if err != nil {
		return err
	}
	order, err := modules(ctx, filepath.Join(tree, "usr/lib/modules", release))
	if err != nil {
		return err
	}
	if err := writeInitrd(filepath.Join(dir, "modules.cpio"), order); err != nil {
		return err
	}
	for _, name := range unwanted() {
		if err := os.RemoveAll(filepath.Join(tree, name)); err != nil {
			return err
		}
	}
	if err := configure(tree); err != nil {
		return err
	}
	for _, argv := range [][]string{
		append(ownLoader(tree, "--argv0", "depmod"), filepath.Join(tree, "usr/bin/kmod"), "-b", tree, release),
		{"mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0", "-d", tree, filepath.Join(dir, "root.ext4"), fmt.Sprint(imageSize >> 10)},
	} {
		if _, err := (proc.Cmd{Argv: argv, Log: log}).Output(ctx); err != nil {
			return err
		}
	}
	return os.RemoveAll(tree)
}

// ownLoader begins a command line that runs a program of a tree with the tree's
// loader and libraries: those of this machine may be older.
func ownLoader(root string, options ...string) []string {
	return append([]string{filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", filepath.Join(root, "usr/lib/x86_64-linux-gnu")}, options...)
}

// takeKernel moves the tree's one kernel to a file, and gives its release.
func takeKernel(tree, to string) (string, error) {
	found, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("kernels in the packages: %v, want one", found)
	}
	_, release, _ := strings.Cut(filepath.Base(found[0]), "-")
	return release, os.Rename(found[0], to)
}

func configure(tree string) error {
	for _, d := range []string{"root", "tmp", "run", "mnt", "opt", "var/tmp", "etc/openvswitch", "etc/ovn", "var/lib/openvswitch", "var/lib/ovn", "var/log/openvswitch", "var/log/ovn"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range configuration() {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for name, target := range alternatives() {
		path := filepath.Join(tree, name)
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		if err := os.Symlink(target, path); err != nil {
			return err
		}
	}
	return nil
}
