// Package ovsdbtest runs real OVS and OVN daemons for tests: ovsdb-server,
// ovn-northd, ovs-vswitchd and their command line tools, from a root directory
// that holds OVN 25.03 or newer (a Debian trixie tree made by the lab), without
// chroot and without installing anything. What it starts it stops when the test
// ends, by process id.
package ovsdbtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// RootEnv names the variable that points at a directory tree with OVN and OVS.
// Empty means: the lab's cache, then the machine itself.
const RootEnv = "PORTOLAN_OVN_ROOT"

// DefaultRoot is where the lab keeps the tree (see e2e/lab).
const DefaultRoot = "/var/cache/portolan-lab/ovn-root"

// Root returns the tree in use, "/" when it is the machine itself.
func Root() string {
	if r := os.Getenv(RootEnv); r != "" {
		return r
	}
	if _, err := os.Stat(filepath.Join(DefaultRoot, "usr/sbin/ovsdb-server")); err == nil {
		return DefaultRoot
	}
	return "/"
}

// Command returns a command that runs one of the tree's programs, by the
// tree's own loader and libraries, so that a glibc newer than the machine's works.
func Command(name string, args ...string) *exec.Cmd {
	root := Root()
	if root == "/" {
		return exec.Command(name, args...)
	}
	path := ""
	for _, dir := range []string{"usr/sbin", "usr/bin", "usr/lib/openvswitch-switch"} {
		if p := filepath.Join(root, dir, name); exists(p) {
			path = p
			break
		}
	}
	// Debian diverts ovs-vswitchd through alternatives: the link's target is absolute.
	if target, err := os.Readlink(path); err == nil && filepath.IsAbs(target) {
		path = filepath.Join(root, target)
		if t2, err := os.Readlink(path); err == nil && filepath.IsAbs(t2) {
			path = filepath.Join(root, t2)
		}
	}
	libs := strings.Join([]string{
		filepath.Join(root, "usr/lib/x86_64-linux-gnu"), filepath.Join(root, "usr/lib"),
	}, ":")
	loader := filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2")
	return exec.Command(loader, append([]string{"--library-path", libs, "--argv0", name, path}, args...)...)
}

// CommandContext is Command for who makes processes by a function of that form; the
// process ends with its test.
func CommandContext(_ context.Context, name string, args ...string) *exec.Cmd {
	return Command(name, args...)
}

// Schema returns the path of a schema file: "ovn-nb", "ovn-sb" or "vswitch".
func Schema(name string) string {
	dir := "usr/share/ovn"
	if name == "vswitch" {
		dir = "usr/share/openvswitch"
	}
	return filepath.Join(Root(), dir, name+".ovsschema")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
