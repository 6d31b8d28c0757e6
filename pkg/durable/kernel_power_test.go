//go:build kernel

package durable

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
)

// TestKernelPowerCut copies a disk at the moment when Write has returned, and reads the
// file from the copy, as a machine does after a loss of power: the new content is there,
// which a plain write and rename does not give.
func TestKernelPowerCut(t *testing.T) {
	runtime.LockOSThread() // for its mounts; the thread ends with the test
	if err := syscall.Unshare(syscall.CLONE_NEWNS | syscall.CLONE_FS); err != nil {
		t.Skipf("needs root: %v", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if err := os.WriteFile(image, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", image)
	mount(t, image, disk)
	path := filepath.Join(disk, "f")
	const begin, plain, kept = "begin", "plain", "kept"
	if err := Write(path, 0o600, []byte(begin)); err != nil {
		t.Fatal(err)
	}
	if got := afterCut(t, image, "f"); got != begin {
		t.Errorf("after the first write the disk has %q", got)
	}
	if err := os.WriteFile(path+".new", []byte(plain), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if got := afterCut(t, image, "f"); got != begin {
		t.Errorf("this disk keeps what nobody has synced (%q): the test proves nothing", got)
	}
	if err := Write(path, 0o600, []byte(kept)); err != nil {
		t.Fatal(err)
	}
	if got := afterCut(t, image, "f"); got != kept {
		t.Errorf("after a write the disk has %q", got)
	}
	if err := Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := afterCut(t, image, "f"); got != "" {
		t.Errorf("after a removal the disk has %q", got)
	}
}

// afterCut is what a file of a copy of a disk has; "": it is not there.
func afterCut(t *testing.T, image, name string) string {
	t.Helper()
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cut, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if err := os.WriteFile(cut, data, 0o600); err != nil {
		t.Fatal(err)
	}
	mount(t, cut, disk)
	text, err := os.ReadFile(filepath.Join(disk, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(text))
}

func mount(t *testing.T, image, at string) {
	t.Helper()
	if err := os.Mkdir(at, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() { _ = syscall.Unmount(at, 0) })
}

// run starts a program in the mount namespace of the test's thread.
func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}
