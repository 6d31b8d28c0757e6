// Command bench measures what Portolan costs, beside what it cannot be quicker
// than: the reference plugins ptp and host-local, OVN itself, a bridge with one flow.
//
//	bench [-parts add,networks,devices,thousand,burst,rate,idle,paths,throughput] [-samples 200] [-doc docs/benchmarks.md] [-with TITLE=FILE]…
//
//	bench ── builds the reference plugins, starts itself in private namespaces
//	   └─ bench inside ── OVS, OVN, a zone's driver and CNI server ──> parts, one after the other
//
// Its output is the generated half of docs/benchmarks.md; -with puts other programs'
// output before it. Contenders take turns, so that whatever else the machine does falls
// on all of them alike. All of it is in network, mount and process namespaces of its
// own, which end with the program, however it ends.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Set in the private namespaces: the run directory, and where the plugins are.
const (
	envInside  = "PTB_INSIDE"
	envPlugins = "PTB_PLUGINS"
)

// options are the program's flags.
type options struct {
	parts   string // by name, with commas
	samples int
	lead    time.Duration // between a pod's binding and its ADD
	shim    string
	pods    int           // that the zone of part rate holds from the start
	spell   time.Duration // how long each rate and each throughput is measured
	firsts  int           // networks of a thousand that are used
	multus  string        // the directory of Multus' programs
	meter   *meter        // of ADDs; nil: none
	doc     string
	with    []string
}

func main() {
	var o options
	flag.StringVar(&o.parts, "parts", "add,networks,devices,thousand,burst,rate,idle,paths,throughput", "what is measured")
	flag.IntVar(&o.samples, "samples", 200, "ADDs and DELs of each contender")
	flag.DurationVar(&o.lead, "lead", 200*time.Millisecond, "how long before its ADD a pod is bound, and the pause before any")
	flag.StringVar(&o.shim, "shim", "bin/portolan-cni", "the plugin that is executed")
	flag.IntVar(&o.pods, "pods", 10_000, "pods in the zone in which part rate adds pods")
	flag.DurationVar(&o.spell, "spell", 20*time.Second, "how long each rate of pods is kept up; throughput takes a tenth of it, ten times")
	flag.IntVar(&o.firsts, "firsts", 100, "networks of the thousand that part thousand uses")
	flag.StringVar(&o.multus, "multus", "", "the directory of Multus' programs, which bin/lab multus prints; part networks needs it")
	flag.StringVar(&o.doc, "doc", "", "write the output into this file too, between its marks")
	flag.Func("with", "TITLE=FILE, repeated: put this file first, under this title", func(s string) error {
		o.with = append(o.with, s)
		return nil
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, o))
}

// run gives the exit code: 0, 1 for a failure, 130 when interrupted.
func run(ctx context.Context, o options) int {
	dir := os.Getenv(envInside)
	var err error
	if dir != "" {
		err = inside(ctx, o, dir)
	} else {
		err = outside(ctx, o)
	}
	switch {
	case ctx.Err() != nil:
		return 130
	case err == nil:
		return 0
	case dir != "" || !errors.As(err, new(*exec.ExitError)): // else the program inside has said why
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	return 1
}

// outside prepares what needs the world, then starts the program again inside.
func outside(ctx context.Context, o options) error {
	if os.Getuid() != 0 || o.samples < 1 {
		return errors.New("it needs root, for its namespaces, and at least one sample")
	}
	shim, err := filepath.Abs(o.shim)
	if err == nil {
		_, err = os.Stat(shim)
	}
	if err != nil {
		return fmt.Errorf("%w; make build builds it", err)
	}
	plugins, err := referencePlugins(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "ptb-") // sockets are in it: a short path
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	front, err := frontMatter(o)
	if err != nil {
		return err
	}
	fmt.Print(front)
	var text bytes.Buffer
	c := exec.CommandContext(ctx, "/proc/self/exe", "-parts", o.parts, "-samples", fmt.Sprint(o.samples), "-lead", o.lead.String(), "-shim", shim, "-multus", o.multus, "-firsts", fmt.Sprint(o.firsts),
		"-pods", fmt.Sprint(o.pods), "-spell", o.spell.String())
	c.Stdout, c.Stderr = io.MultiWriter(os.Stdout, &text), os.Stderr
	if err := inPrivate(ctx, c, dir, plugins); err != nil || o.doc == "" {
		return err
	}
	return document(o.doc, front+text.String())
}

// inPrivate runs a program in namespaces of its own, as their process 1.
func inPrivate(ctx context.Context, c *exec.Cmd, dir, plugins string) error {
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	c.Env = append(os.Environ(), envInside+"="+dir, envPlugins+"="+plugins)
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.Run()
}

// part is one chapter of the output.
type part struct {
	name  string
	title string
	run   func(ctx context.Context, o options, n *node, w io.Writer) error
}

func parts() []part {
	return []part{
		{"add", "ADD and DEL, one at a time", timeADD},
		{"networks", "ADD and DEL of a pod on several networks", timeNetworks},
		{"devices", "ADD and DEL of a pod with a soft device", timeDevices},
		{"thousand", "A thousand networks", timeThousand},
		{"burst", "ADD, ten at once", timeBurst},
		{"rate", "A pod created, until its chassis has bound it", timeRate},
		{"idle", "At rest", timeIdle},
		{"paths", "What the datapath does with a packet", printPaths},
		{"throughput", "Between two pods of a node", timeThroughput},
	}
}

// inside is process 1 of the private namespaces: what it starts ends with it.
func inside(ctx context.Context, o options, dir string) error {
	if err := private(); err != nil {
		return err
	}
	z, err := startZone(ctx, dir)
	if err != nil {
		return err
	}
	n, err := startNode(ctx, z)
	if err != nil {
		return errors.Join(err, z.tails())
	}
	defer n.close()
	for _, p := range parts() {
		if !slices.Contains(strings.Split(o.parts, ","), p.name) {
			continue
		}
		fmt.Printf("\n### %s\n\n```\n", p.title)
		if err := p.run(ctx, o, n, os.Stdout); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p.name, err), z.tails())
		}
		fmt.Println("```")
	}
	return nil
}

// private makes mounts of our own of what would reach the machine's.
func private() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	return errors.Join(syscall.Mount("ptb", netnsDir, "tmpfs", 0, ""), syscall.Mount("proc", "/proc", "proc", 0, ""))
}
