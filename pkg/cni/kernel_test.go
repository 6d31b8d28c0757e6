//go:build kernel

package cni_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/ovsdb/vswitch"
)

// The kernel tier runs by root: go test -tags kernel ./pkg/cni/... The test
// binary starts itself in a network and mount namespace of its own, with a real
// ovsdb-server and ovs-vswitchd (userspace datapath) there. No ovn-controller
// runs but in TestKernelOVN: standIn writes ovn-installed once vswitchd has given
// a port its number.
// A server that is to be killed is a further start of the same binary.
const (
	envServer = "PTT_SERVER" // set in a server: its serverConfig
	bridge    = "br-int"
	markOVN   = "ptt-ovn" // in br-int's external_ids: the stand-in rests
)

func TestMain(m *testing.M) {
	if server := os.Getenv(envServer); server != "" {
		os.Exit(serverMain(server))
	}
	os.Exit(nstest.Main(syscall.CLONE_NEWNET|syscall.CLONE_NEWNS, func() int { return insideMain(m, nstest.Dir()) }))
}

func insideMain(m *testing.M, dir string) int {
	ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ds := &daemons{dir: dir}
	defer ds.stop()
	go func() {
		<-ctx.Done() // interrupted: the namespaces end with the processes in them
		ds.stop()
		os.Exit(1)
	}()
	err := startOVS(ds, dir)
	if err == nil {
		err = buildPlugin(dir)
	}
	if err == nil {
		err = standIn(ctx, dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func database() string { return "unix:" + filepath.Join(nstest.Dir(), "db.sock") }

func binDir() string { return filepath.Join(nstest.Dir(), "bin") }

// daemons are what a test has started; the last is stopped first.
type daemons struct {
	dir     string
	running []*exec.Cmd
}

// start runs a daemon of OVS or OVN in the foreground of its own process.
func (d *daemons) start(name string, args ...string) error {
	as := fmt.Sprintf("%s-%d", name, len(d.running))
	c := ovsdbtest.Command(name, append(args, "--log-file="+filepath.Join(d.dir, as+".log"), "-vconsole:off",
		"--unixctl="+filepath.Join(d.dir, as+".ctl"))...)
	c.Env = append(os.Environ(), "OVS_RUNDIR="+nstest.Dir(), "OVS_LOGDIR="+d.dir, "OVN_RUNDIR="+d.dir, "OVN_LOGDIR="+d.dir)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return err
	}
	d.running = append(d.running, c)
	return nil
}

func (d *daemons) stop() {
	for _, c := range slices.Backward(d.running) {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

// startOVS starts the two daemons in the current namespaces and makes br-int.
func startOVS(ds *daemons, dir string) error {
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("ptt", "/run/netns", "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := mountSysfs(); err != nil {
		return err
	}
	conf := filepath.Join(dir, "conf.db")
	if out, err := ovsdbtest.Command("ovsdb-tool", "create", conf, ovsdbtest.Schema("vswitch")).CombinedOutput(); err != nil {
		return fmt.Errorf("ovsdb-tool: %w: %s", err, out)
	}
	if err := ds.start("ovsdb-server", conf, "--remote=p"+database()); err != nil {
		return err
	}
	if _, err := vsctl("--no-wait", "init", "--", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev", "fail_mode=secure"); err != nil {
		return err
	}
	if err := ds.start("ovs-vswitchd", database(), "--disable-system"); err != nil {
		return err
	}
	_, err := vsctl("--timeout=20", "wait-until", "interface", bridge, "ofport=65534")
	return err
}

// vsctl runs ovs-vsctl; it retries the connection by itself.
func vsctl(args ...string) (string, error) {
	c := ovsdbtest.Command("ovs-vsctl", append([]string{"--db=" + database(), "--retry", "--timeout=20"}, args...)...)
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ovs-vsctl %v: %w: %s", args, err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func buildPlugin(dir string) error {
	out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "bin", cni.BinaryName),
		"github.com/portolan-cni/portolan/cmd/portolan-cni").CombinedOutput()
	if err != nil {
		return fmt.Errorf("building portolan-cni: %w: %s", err, out)
	}
	return nil
}

// standIn does the one thing of ovn-controller that an ADD waits for: when
// vswitchd has given an interface with an iface-id its port number, it writes
// ovn-installed.
func standIn(ctx context.Context, _ string) error {
	db, err := model.NewClientDBModel("Open_vSwitch", map[string]model.Model{vswitch.InterfaceTable: &vswitch.Interface{}})
	if err != nil {
		return err
	}
	c, err := client.NewOVSDBClient(db, client.WithEndpoint(database()))
	if err != nil {
		return err
	}
	if err := c.Connect(ctx); err != nil {
		return err
	}
	bell := make(chan struct{}, 1)
	ring := func(string, model.Model) {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
	c.Cache().AddEventHandler(&cache.EventHandlerFuncs{AddFunc: ring, UpdateFunc: func(table string, _, m model.Model) { ring(table, m) }})
	i := &vswitch.Interface{}
	if _, err := c.Monitor(ctx, c.NewMonitor(client.WithTable(i, &i.Name, &i.ExternalIDs, &i.Ofport))); err != nil {
		return err
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-bell:
				installAll(ctx, c)
			}
		}
	}()
	return nil
}

func installAll(ctx context.Context, c client.Client) {
	var waiting []vswitch.Interface
	real := &vswitch.Interface{Name: bridge}
	if err := c.Get(ctx, real); err == nil && real.ExternalIDs[markOVN] != "" {
		return // a real ovn-controller is at work
	}
	_ = c.WhereCache(func(i *vswitch.Interface) bool {
		ids := i.ExternalIDs
		return ids["iface-id"] != "" && ids["ovn-installed"] == "" && i.Ofport != nil && *i.Ofport > 0
	}).List(ctx, &waiting)
	for _, i := range waiting {
		m, _ := ovsdb.NewOvsMap(map[string]string{"ovn-installed": "true"})
		_, _ = c.Transact(ctx, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: vswitch.InterfaceTable,
			Where:     []ovsdb.Condition{ovsdb.NewCondition("_uuid", ovsdb.ConditionEqual, ovsdb.UUID{GoUUID: i.UUID})},
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("external_ids", ovsdb.MutateOperationInsert, m)}})
	}
}
