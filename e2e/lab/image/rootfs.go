package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// Root is an image's file tree being put together from programs of this machine.
type Root struct{ Dir string }

// Users writes the accounts that upstream's tests expect in their images.
func (r Root) Users() error {
	passwd := "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
	group := "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
	for _, d := range []string{"bin", "usr/bin", "etc", "tmp", "uploads", "root", "home", "var/run"} {
		if err := os.MkdirAll(filepath.Join(r.Dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(r.Dir, "tmp"), 0o777|os.ModeSticky); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.Dir, "etc/group"), []byte(group), 0o644)
}

// Busybox puts a static busybox and a link for each of its applets into /bin.
func (r Root) Busybox(ctx context.Context) error {
	if err := r.copyFile("/bin/busybox", "bin/busybox"); err != nil {
		return fmt.Errorf("busybox-static: %w", err)
	}
	list, err := proc.Output(ctx, "/bin/busybox", "--list")
	if err != nil {
		return err
	}
	for _, applet := range strings.Fields(list) {
		if applet == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(r.Dir, "bin", applet)); err != nil {
			return err
		}
	}
	return nil
}

// library matches the paths in ldd's output.
var library = regexp.MustCompile(`/[^ ]+\.so[^ ]*`)

// Program puts a program of this machine into the tree as /usr/bin/as, with the
// libraries ldd names, in place of a busybox applet of that name.
func (r Root) Program(ctx context.Context, name, as string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return fmt.Errorf("image tool: %w", err)
	}
	if err := os.Remove(filepath.Join(r.Dir, "bin", as)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := r.copyFile(path, filepath.Join("usr/bin", as)); err != nil {
		return err
	}
	libs, err := proc.Output(ctx, "ldd", path)
	if err != nil {
		return err
	}
	for _, lib := range library.FindAllString(libs, -1) {
		if err := r.copyFile(lib, lib); err != nil {
			return err
		}
	}
	return nil
}

// Link makes a symbolic link in the tree.
func (r Root) Link(target, path string) error {
	full := filepath.Join(r.Dir, path)
	if err := os.Remove(full); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink(target, full)
}

// File copies a file into the tree under the path to.
func (r Root) File(from, to string) error { return r.copyFile(from, to) }

// copyFile follows links, so that a library is found under the name it is asked for.
func (r Root) copyFile(from, to string) error {
	dest := filepath.Join(r.Dir, to)
	if _, err := os.Stat(dest); err == nil {
		return nil
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dest, b, info.Mode().Perm())
}
