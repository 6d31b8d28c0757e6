package ovsdbtest

import (
	"path/filepath"
	"syscall"
	"testing"
)

// OVN is a northbound and a southbound database with ovn-northd between them:
// one zone without a chassis.
type OVN struct {
	NB, SB *Server
	t      testing.TB
	dir    string
	northd *process
}

// Start runs both databases and northd until the test ends.
func Start(t testing.TB) *OVN {
	t.Helper()
	o := &OVN{NB: StartServer(t, Schema("ovn-nb")), SB: StartServer(t, Schema("ovn-sb")), t: t, dir: shortDir(t)}
	o.StartNorthd()
	t.Cleanup(o.KillNorthd)
	return o
}

// StartNorthd starts northd again after KillNorthd.
func (o *OVN) StartNorthd() {
	o.t.Helper()
	o.northd = start(o.t, o.dir, Command("ovn-northd", "--ovnnb-db="+o.NB.Endpoint, "--ovnsb-db="+o.SB.Endpoint,
		"--unixctl="+filepath.Join(o.dir, "northd.ctl"), "-vconsole:warn", "-vfile:off"))
}

// KillNorthd ends northd with SIGKILL.
func (o *OVN) KillNorthd() { o.northd.kill() }

// Sync waits until northd has translated everything that NB holds now.
func (o *OVN) Sync() {
	o.t.Helper()
	Run(o.t, "ovn-nbctl", "--no-leader-only", "--db="+o.NB.Endpoint, "--wait=sb", "sync")
}

// Nbctl runs ovn-nbctl, as an operator would.
func (o *OVN) Nbctl(args ...string) string {
	o.t.Helper()
	return Run(o.t, "ovn-nbctl", append([]string{"--no-leader-only", "--db=" + o.NB.Endpoint}, args...)...)
}

// Sbctl runs ovn-sbctl.
func (o *OVN) Sbctl(args ...string) string {
	o.t.Helper()
	return Run(o.t, "ovn-sbctl", append([]string{"--no-leader-only", "--db=" + o.SB.Endpoint}, args...)...)
}

// Trace waits for northd and says what OVN does with a packet that enters a
// datapath: ovn-trace's output in full.
func (o *OVN) Trace(datapath, microflow string) string {
	o.t.Helper()
	o.Sync()
	return Run(o.t, "ovn-trace", "--no-leader-only", "--db="+o.SB.Endpoint, datapath, microflow)
}

// OVS is a node's Open_vSwitch database, with ovs-vswitchd if it was asked for.
type OVS struct {
	*Server
	vswitchd *process
}

// StartOVS runs the database with its one row, as ovs-ctl leaves it. With
// daemon, also ovs-vswitchd with the userspace datapath in a network namespace
// of its own, which needs root.
func StartOVS(t testing.TB, daemon bool) *OVS {
	t.Helper()
	o := &OVS{Server: StartServer(t, Schema("vswitch"))}
	o.Vsctl("--no-wait", "init")
	if daemon {
		o.StartVswitchd()
		t.Cleanup(o.KillVswitchd)
	}
	return o
}

// StartVswitchd starts vswitchd, and returns when it has configured itself.
func (o *OVS) StartVswitchd() {
	o.t.Helper()
	cmd := Command("ovs-vswitchd", o.Endpoint, "--disable-system", "--unixctl="+filepath.Join(o.Dir, "vswitchd.ctl"), "-vconsole:warn", "-vfile:off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	o.vswitchd = start(o.t, o.Dir, cmd)
	o.Vsctl("set", "Open_vSwitch", ".", "external_ids:started=true") // waits for cur_cfg
}

// KillVswitchd ends vswitchd with SIGKILL.
func (o *OVS) KillVswitchd() { o.vswitchd.kill() }

// Vsctl runs ovs-vsctl, as an operator would.
func (o *OVS) Vsctl(args ...string) string {
	o.t.Helper()
	return Run(o.t, "ovs-vsctl", append([]string{"--db=" + o.Endpoint}, args...)...)
}
