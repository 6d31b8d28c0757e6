//go:build kernel

package nstest

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestMain(m *testing.M) {
	os.Exit(Main(syscall.CLONE_NEWNET|syscall.CLONE_NEWNS|syscall.CLONE_NEWPID, m.Run))
}

// TestKernelApart: nothing of the machine's is here, and mounts stay here.
func TestKernelApart(t *testing.T) {
	if links, err := net.Interfaces(); err != nil || len(links) != 1 || links[0].Name != "lo" {
		t.Errorf("links %v, %v", links, err)
	}
	if os.Getpid() != 1 {
		t.Errorf("process %d of its namespace", os.Getpid())
	}
	outside, err := os.Stat(Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", Dir(), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	inside, err := os.Stat(Dir())
	if err != nil || os.SameFile(outside, inside) {
		t.Errorf("nothing is mounted: %v", err)
	}
	if err := os.WriteFile(filepath.Join(Dir(), "f"), nil, 0o600); err != nil {
		t.Error(err) // it goes with the mount: the first process removes an empty directory
	}
}
