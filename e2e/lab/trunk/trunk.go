// Package trunk is the switch on the lab's second wire that knows VLANs: an Open
// vSwitch of the base system, in the namespace of the lab's bridges. The wire is
// its trunk; each host that is in a VLAN has an access port.
//
//	br1 ── trunk ── ovs0 ── wire100 (tag 100)
//
// Its daemons are in a cgroup of the lab, so they end with it, however it ends.
package trunk

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Command is the hidden command of the lab's own binary that becomes a daemon of the switch.
const Command = "trunk-stage"

// group is the switch's cgroup.
const group = "trunk"

// Become joins the cgroup and the namespace of the lab's bridges, and becomes the
// program. It returns only if that fails.
func Become(argv []string) error {
	if err := node.Join(group); err != nil {
		return err
	}
	runtime.LockOSThread() // exec keeps the namespaces of the thread that calls it
	ns, err := os.Open(wire.Path(wire.LAN()))
	if err != nil {
		return err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter %s: %w", wire.LAN(), err)
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

// ovs is where the switch's programs and files are.
type ovs struct {
	base string // root of the base system
	dir  string // sockets, database, logs
}

// argv runs a program of the base system by its own loader and libraries.
func (o ovs) argv(program string, args ...string) []string {
	return append([]string{filepath.Join(o.base, "lib64/ld-linux-x86-64.so.2"), "--library-path", filepath.Join(o.base, "usr/lib/x86_64-linux-gnu"),
		filepath.Join(o.base, program)}, args...)
}

func (o ovs) run(ctx context.Context, argv []string) error {
	_, err := proc.Cmd{Argv: argv, Env: []string{"OVS_RUNDIR=" + o.dir, "OVS_LOGDIR=" + o.dir, "OVS_DBDIR=" + o.dir, "OVS_SYSCONFDIR=" + o.dir}}.Output(ctx)
	if err != nil {
		return fmt.Errorf("the second wire's switch: %w", err)
	}
	return nil
}

// daemon starts a program that detaches once it is ready.
func (o ovs) daemon(ctx context.Context, program, name string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args = append(args, "--detach", "--no-chdir", "--pidfile="+filepath.Join(o.dir, name+".pid"), "--unixctl="+filepath.Join(o.dir, name+".ctl"),
		"--log-file="+filepath.Join(o.dir, name+".log"), "-vconsole:off")
	return o.run(ctx, append([]string{self, Command}, o.argv(program, args...)...))
}

// Start starts the switch of a lab whose wires are up; base is the root of the base
// system, dir a short path that goes with the lab.
func Start(ctx context.Context, p plan.Plan, base, dir string) error {
	o := ovs{base: base, dir: dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	db, socket := filepath.Join(dir, "conf.db"), filepath.Join(dir, "db.sock")
	if err := o.run(ctx, o.argv("usr/bin/ovsdb-tool", "create", db, filepath.Join(base, "usr/share/openvswitch/vswitch.ovsschema"))); err != nil {
		return err
	}
	if err := o.daemon(ctx, "usr/sbin/ovsdb-server", "db", db, "--remote=punix:"+socket); err != nil {
		return err
	}
	if err := o.daemon(ctx, "usr/lib/openvswitch-switch/ovs-vswitchd", "vswitchd", "unix:"+socket, "--disable-system"); err != nil {
		return err
	}
	ports := []string{"--db=unix:" + socket, "--timeout=20", "--", "add-br", "ovs0", "--", "set", "bridge", "ovs0", "datapath_type=netdev",
		"--", "add-port", "ovs0", wire.TrunkPort}
	up := []string{wire.TrunkPort}
	for _, w := range p.Wire {
		if w.VLAN != 0 {
			ports, up = append(ports, "--", "add-port", "ovs0", w.Name, "tag="+strconv.Itoa(w.VLAN)), append(up, w.Name)
		}
	}
	if err := o.run(ctx, o.argv("usr/bin/ovs-vsctl", ports...)); err != nil {
		return err
	}
	for _, port := range up {
		if err := proc.Run(ctx, "ip", "-n", wire.LAN(), "link", "set", port, "up"); err != nil {
			return err
		}
	}
	return nil
}
