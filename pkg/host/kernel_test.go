//go:build kernel

package host_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// TestMain runs the tests in a process with its own network and mount
// namespaces, which go with it: the machine's network is never touched.
func TestMain(m *testing.M) {
	os.Exit(nstest.Main(syscall.CLONE_NEWNET|syscall.CLONE_NEWNS, func() int {
		err := os.MkdirAll("/run/netns", 0o755)
		if err == nil {
			err = syscall.Mount("tmpfs", "/run/netns", "tmpfs", 0, "")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "namespace:", err)
			return 1
		}
		return m.Run()
	}))
}

// run runs a command and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sh runs lines of commands, words separated by spaces.
func sh(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if f := strings.Fields(line); len(f) > 0 {
			run(t, f[0], f[1:]...)
		}
	}
}

// eventually waits for a condition with a deadline.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", within, what)
		case <-tick.C:
		}
	}
}

// vswitch is an OVS of the test's own on the userspace datapath.
type vswitch struct {
	t    *testing.T
	dir  string
	env  []string
	proc *exec.Cmd
}

func startOVS(t *testing.T) *vswitch {
	t.Helper()
	dir := t.TempDir()
	v := &vswitch{t: t, dir: dir, env: append(os.Environ(), "OVS_RUNDIR="+dir, "OVS_LOGDIR="+dir, "OVS_DBDIR="+dir, "OVS_SYSCONFDIR="+dir)}
	v.do("ovsdb-tool", "create", filepath.Join(dir, "conf.db"), ovsdbtest.Schema("vswitch"))
	v.start("ovsdb-server", filepath.Join(dir, "conf.db"), "--remote=punix:"+v.sock(), "--unixctl="+dir+"/db.ctl", "-vconsole:off")
	eventually(t, 5*time.Second, "ovsdb-server listens", func() bool { _, err := os.Stat(v.sock()); return err == nil })
	v.do("ovs-vsctl", "--db=unix:"+v.sock(), "--no-wait", "init")
	v.startSwitch()
	return v
}

func (v *vswitch) sock() string { return filepath.Join(v.dir, "db.sock") }

func (v *vswitch) start(name string, args ...string) *exec.Cmd {
	v.t.Helper()
	cmd := ovsdbtest.Command(name, args...)
	cmd.Env = v.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() { // the parent-death signal follows the thread that forks
		runtime.LockOSThread()
		started <- cmd.Start()
		_ = cmd.Wait()
	}()
	if err := <-started; err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

func (v *vswitch) startSwitch() {
	v.t.Helper()
	v.proc = v.start("ovs-vswitchd", "unix:"+v.sock(), "--unixctl="+v.dir+"/sw.ctl", "--disable-system", "-vconsole:off",
		"--log-file="+v.dir+"/sw.log")
}

func (v *vswitch) killSwitch() {
	v.t.Helper()
	if err := v.proc.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	v.ended()
}

func (v *vswitch) exitSwitch() {
	v.t.Helper()
	v.do("ovs-appctl", "-t", v.dir+"/sw.ctl", "exit", "--cleanup")
	v.ended()
}

func (v *vswitch) ended() {
	v.t.Helper()
	eventually(v.t, 5*time.Second, "vswitchd is gone", func() bool {
		return syscall.Kill(v.proc.Process.Pid, 0) != nil
	})
}

func (v *vswitch) do(name string, args ...string) string {
	v.t.Helper()
	cmd := ovsdbtest.Command(name, args...)
	cmd.Env = v.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		v.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (v *vswitch) vsctl(args string) {
	v.t.Helper()
	v.do("ovs-vsctl", append([]string{"--db=unix:" + v.sock()}, strings.Fields(args)...)...)
}

// ofctl is what FlowLoader runs.
func (v *vswitch) ofctl(_ context.Context, args ...string) *exec.Cmd {
	cmd := ovsdbtest.Command("ovs-ofctl", args...)
	cmd.Env = v.env
	return cmd
}

// inNS runs f on a thread in a network namespace.
func inNS(t *testing.T, name string, f func() error) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromName(name)
		if err == nil {
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// serve answers every connection in a namespace ("": the node's) with a word.
func serve(t *testing.T, ns, addr, word string) {
	t.Helper()
	var l net.Listener
	listen := func() (err error) { l, err = net.Listen("tcp4", addr); return err }
	err := error(nil)
	if ns == "" {
		err = listen()
	} else {
		err = inNS(t, ns, listen)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, word)
			c.Close()
		}
	}()
}

// call connects and returns the word.
func call(t *testing.T, ns, addr string) (word string, err error) {
	t.Helper()
	dial := func() error {
		c, err := net.DialTimeout("tcp4", addr, 3*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		b, err := io.ReadAll(c)
		word = string(b)
		return err
	}
	if ns == "" {
		return word, dial()
	}
	err = inNS(t, ns, dial)
	return word, err
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
