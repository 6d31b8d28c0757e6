//go:build kernel

package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/paths.txt")

// TestPaths holds what the datapath does with the first packet of a connection, on
// each path through a node, to testdata/paths.txt: recirculations and datapath flows
// are what packets cost.
func TestPaths(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if dir := os.Getenv(envInside); dir != "" {
		tracePaths(ctx, t, dir)
		return
	}
	dir, err := os.MkdirTemp("/tmp", "ptb-") // sockets are in it: a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "shim"), "../../cmd/portolan-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	args := []string{"-test.run=^TestPaths$", "-test.v"}
	if *update {
		args = append(args, "-update")
	}
	var out bytes.Buffer
	c := exec.CommandContext(ctx, "/proc/self/exe", args...)
	c.Stdout, c.Stderr = &out, &out
	if err := inPrivate(ctx, c, dir, ""); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

func tracePaths(ctx context.Context, t *testing.T, dir string) {
	if err := private(); err != nil {
		t.Fatal(err)
	}
	z, err := startZone(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	n, err := startNode(ctx, z)
	if err != nil {
		t.Fatal(err, z.tails())
	}
	defer n.close()
	var got bytes.Buffer
	if err := printPaths(ctx, options{shim: filepath.Join(dir, "shim")}, n, &got); err != nil {
		t.Fatal(err, z.tails())
	}
	const golden = "testdata/paths.txt"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("paths (-wanted +found); -update rewrites %s:\n%s", golden, d)
	}
}
