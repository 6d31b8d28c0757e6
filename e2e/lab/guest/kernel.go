package guest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/debs"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// sourceName is both the package's archive and the directory in it.
const sourceName = "linux-source-6.12"

// fillKernel makes bzImage and config. The compiler and the other tools are
// unpacked beside the sources and run in a root of their own, so that the kernel
// does not depend on what this machine has installed.
func (b Builder) fillKernel(ctx context.Context, dir string, pkgs []debs.Package) error {
	log, err := b.LogFile("guest-kernel")
	if err != nil {
		return err
	}
	defer log.Close()
	s := b.suite()
	s.Log = log
	root := filepath.Join(dir, "root")
	if err := s.Unpack(ctx, pkgs, root); err != nil {
		return err
	}
	if err := buildRoot(root); err != nil {
		return err
	}
	for name, from := range map[string]string{"config": "kernel.config", "patch": "netdevsim-offload.patch"} {
		if err := proc.Run(ctx, "cp", filepath.Join(b.Repo, "e2e", "offload", from), filepath.Join(root, "build", name)); err != nil {
			return err
		}
	}
	in := chroot{root: root, log: log}
	for _, argv := range [][]string{
		{"tar", "-C", "/build", "-xJf", "/usr/src/" + sourceName + ".tar.xz"},
		{"patch", "-d", "/build/" + sourceName, "-p1", "-i", "/build/patch"},
		{"make", "-s", "-C", "/build/" + sourceName, "KCONFIG_ALLCONFIG=/build/config", "allnoconfig"},
	} {
		if err := in.run(ctx, argv...); err != nil {
			return err
		}
	}
	source := filepath.Join(root, "build", sourceName)
	if err := checkConfig(filepath.Join(root, "build", "config"), filepath.Join(source, ".config")); err != nil {
		return err
	}
	if err := in.run(ctx, "make", "-s", fmt.Sprintf("-j%d", runtime.NumCPU()), "-C", "/build/"+sourceName, "bzImage"); err != nil {
		return err
	}
	for from, to := range map[string]string{"arch/x86/boot/bzImage": "bzImage", ".config": "config"} {
		if err := os.Rename(filepath.Join(source, from), filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	return os.RemoveAll(root)
}

// buildRoot adds what maintainer scripts and a running system would have.
func buildRoot(root string) error {
	for _, d := range []string{"build", "dev", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink("mawk", filepath.Join(root, "usr/bin/awk")); err != nil {
		return err
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "urandom": 9} {
		if err := unix.Mknod(filepath.Join(root, "dev", name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return fmt.Errorf("/dev/%s of the root to build in: %w", name, err)
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(target, filepath.Join(root, "dev", name)); err != nil {
			return err
		}
	}
	return nil
}

// chroot runs programs in a root, in PID and mount namespaces of their own: all
// that a build has started ends with it.
type chroot struct {
	root string
	log  io.Writer
}

func (c chroot) run(ctx context.Context, argv ...string) error {
	// Time and names would be in the kernel: the same sources shall give the same kernel.
	in := []string{"nice", "-n", "5", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--root=" + c.root, "--mount-proc",
		"/usr/bin/env", "-i", "PATH=/usr/bin:/usr/sbin", "HOME=/", "LC_ALL=C",
		"KBUILD_BUILD_TIMESTAMP=@0", "KBUILD_BUILD_USER=portolan", "KBUILD_BUILD_HOST=guest"}
	_, err := proc.Cmd{Argv: append(in, argv...), Log: c.log}.Output(ctx)
	return err
}

// checkConfig compares what was asked with what Kconfig made of it: it drops in
// silence an option whose dependencies are not met.
func checkConfig(asked, made string) error {
	want, err := readConfig(asked)
	if err != nil {
		return err
	}
	got, err := readConfig(made)
	if err != nil {
		return err
	}
	var lost []string
	for name, value := range want {
		have, ok := got[name]
		if !ok {
			have = "n"
		}
		if have != value {
			lost = append(lost, fmt.Sprintf("%s=%s (became %s)", name, value, have))
		}
	}
	if len(lost) > 0 {
		return fmt.Errorf("options of %s that the kernel does not take as they stand, by what they depend on: %s", filepath.Base(asked), strings.Join(lost, ", "))
	}
	return nil
}

func readConfig(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			out[name] = value
		}
	}
	return out, lines.Err()
}
