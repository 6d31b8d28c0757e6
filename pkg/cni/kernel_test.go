//go:build kernel

package cni_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
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
	envInside = "PTT_INSIDE" // set in the private namespaces: the run directory
	envServer = "PTT_SERVER" // set in a server: its serverConfig
	bridge    = "br-int"
	markOVN   = "ptt-ovn" // in br-int's external_ids: the stand-in rests
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envServer) != "":
		os.Exit(serverMain(os.Getenv(envServer)))
	case os.Getenv(envInside) != "":
		os.Exit(insideMain(m, os.Getenv(envInside)))
	}
	os.Exit(outsideMain())
}

// outsideMain starts the binary again in namespaces of its own and cleans up.
func outsideMain() int {
	dir, err := os.MkdirTemp("", "ptt-cni-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Env = append(os.Environ(), envInside+"="+dir)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	signal.Ignore(syscall.SIGINT) // the child handles it, then this one cleans up
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func insideMain(m *testing.M, dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ds := &daemons{dir: dir}
	defer ds.stop()
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

func database() string { return "unix:" + filepath.Join(os.Getenv(envInside), "db.sock") }

func binDir() string { return filepath.Join(os.Getenv(envInside), "bin") }

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
	c.Env = append(os.Environ(), "OVS_RUNDIR="+os.Getenv(envInside), "OVS_LOGDIR="+d.dir, "OVN_RUNDIR="+d.dir, "OVN_LOGDIR="+d.dir)
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
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("ptt", "/run/netns", "tmpfs", 0, ""); err != nil {
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

// serverConfig tells a server process what to be.
type serverConfig struct {
	Socket  string
	Subnets []netip.Prefix
	Pods    []cni.Pod
	KillAt  string // "ADD/move-peer": it kills itself there
	Kernel  bool   // the kernel datapath's settings: nothing concealed, checksums offloaded
}

// serverMain is a server process. On stdin it reads commands: "bound NS/NAME",
// "gone UID", "owners"; each is answered by a line.
func serverMain(config string) int {
	var sc serverConfig
	err := json.Unmarshal([]byte(config), &sc)
	if err == nil {
		err = serve(sc)
	}
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	return 0
}

func serve(sc serverConfig) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ports, err := cni.DialPorts(ctx, database(), bridge)
	if err != nil {
		return err
	}
	links, err := cni.NewVeths(!sc.Kernel)
	if err != nil {
		return err
	}
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: sc.Subnets})
	if err != nil {
		return err
	}
	pods := cni.NewPodStore()
	for _, p := range sc.Pods {
		pods.Set(p)
	}
	c := cni.Config{Pods: pods, Ports: ports, Links: links, Publisher: publisherFunc(func(cni.Attachment) {}), Pool: pool,
		MTU: 1400, Timeout: 10 * time.Second, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	times := &stageTimes{times: make(map[string][]time.Duration)}
	c.Observe = times.observe
	c.AtStage = func(command, stage string) {
		if sc.KillAt == command+"/"+stage {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
	}
	if !sc.Kernel {
		if c.Concealer, err = cni.NewNFTables(); err != nil {
			return err
		}
	}
	agent, err := cni.New(c)
	if err != nil {
		return err
	}
	if err := agent.Recover(ctx, pods.List(), nil); err != nil {
		return err
	}
	l, err := cni.Listen(sc.Socket)
	if err != nil {
		return err
	}
	go func() { _ = agent.Serve(ctx, l) }()
	fmt.Println("ready")
	obey(ctx, agent, pods, pool, times)
	return nil
}

// stageTimes collects what Observe is told.
type stageTimes struct {
	mu    sync.Mutex // guards times
	times map[string][]time.Duration
}

func (s *stageTimes) observe(command, stage string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[command+"/"+stage] = append(s.times[command+"/"+stage], d)
}

func (s *stageTimes) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s.times)) {
		d := slices.Sorted(slices.Values(s.times[k]))
		out = append(out, fmt.Sprintf("%s=%s", k, d[len(d)/2].Round(10*time.Microsecond)))
	}
	return strings.Join(out, " ")
}

func obey(ctx context.Context, agent *cni.Agent, pods *cni.PodStore, pool *alloc.Pool, times *stageTimes) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		var err error
		switch verb {
		case "bound":
			ns, name, _ := strings.Cut(arg, "/")
			var p cni.Pod
			if p, err = pods.Wait(ctx, ns, name, ""); err == nil {
				err = agent.Prepare(ctx, p)
			}
		case "gone":
			err = agent.Forget(ctx, arg)
		case "owners":
			fmt.Println("owners", pool.Owners())
			continue
		case "stages":
			fmt.Println(times)
			continue
		}
		fmt.Println("done", err)
	}
}

// server is a running server process.
type server struct {
	t      *testing.T
	config serverConfig
	cmd    *exec.Cmd
	in     *bufio.Writer
	out    *bufio.Scanner
}

func startServer(t *testing.T, sc serverConfig) *server {
	t.Helper()
	b, err := json.Marshal(sc)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, config: sc, cmd: exec.Command("/proc/self/exe")}
	s.cmd.Env = append(os.Environ(), envServer+"="+string(b))
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = bufio.NewWriter(in), bufio.NewScanner(out)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	if !s.out.Scan() || s.out.Text() != "ready" {
		t.Fatalf("the server says %q", s.out.Text())
	}
	return s
}

func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// again starts a server like this one, with another point to die at.
func (s *server) again(killAt string) *server {
	s.stop()
	sc := s.config
	sc.KillAt = killAt
	return startServer(s.t, sc)
}

// ask sends a command; false when the server has died of it.
func (s *server) ask(command string) (string, bool) {
	fmt.Fprintln(s.in, command)
	_ = s.in.Flush()
	ok := s.out.Scan()
	return s.out.Text(), ok
}

func (s *server) must(command string) string {
	s.t.Helper()
	answer, ok := s.ask(command)
	if !ok || strings.HasPrefix(answer, "done ") && answer != "done <nil>" {
		s.t.Fatalf("%s: %q", command, answer)
	}
	return answer
}

// prepare prepares the pod's port and waits until it is installed.
func (s *server) prepare() {
	s.t.Helper()
	s.must("bound shop/web")
	name, err := vsctl("list-ports", bridge)
	if err == nil {
		_, err = vsctl("wait-until", "interface", name, "external_ids:ovn-installed=true")
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// call makes a CNI call over the socket, as the shim does.
func (s *server) call(c *wire.Call) (*wire.Reply, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	return wire.Do(ctx, s.config.Socket, c)
}

func (s *server) succeed(c *wire.Call) string {
	s.t.Helper()
	reply, err := s.call(c)
	if err != nil {
		s.t.Fatalf("%s %s: %v", c.Command, c.ContainerID, err)
	}
	if reply.Error != nil {
		s.t.Fatalf("%s %s: %v", c.Command, c.ContainerID, reply.Error)
	}
	return string(reply.Result)
}

// left lists what is in OVS, kernel, nftables and pool that belongs to pods.
func (s *server) left() string {
	s.t.Helper()
	links, err := cni.NewVeths(false)
	if err != nil {
		s.t.Fatal(err)
	}
	defer links.Close()
	veths, err := links.List()
	if err != nil {
		s.t.Fatal(err)
	}
	ports, err := vsctl("list-ports", bridge)
	if err != nil {
		s.t.Fatal(err)
	}
	chains, _ := exec.Command("nft", "list", "chains", "netdev").CombinedOutput()
	owners := s.must("owners")
	return fmt.Sprintf("veths=%d ports=%d chains=%d %s", len(veths), len(strings.Fields(ports)), strings.Count(string(chains), "chain hide-"), owners)
}

const clean = "veths=0 ports=0 chains=0 owners []"

// sandbox makes a network namespace that ends with the test.
func sandbox(t *testing.T, name string) string {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "add", "ptt-"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "ptt-"+name).Run() })
	return "/run/netns/ptt-" + name
}

func kernelCall(command, id, netns string) *wire.Call {
	c := call(command, id)
	c.Netns = netns
	return c
}

func testServer(t *testing.T) *server {
	return startServer(t, serverConfig{
		Socket: filepath.Join(t.TempDir(), "cni.sock"), Pods: []cni.Pod{web()},
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
	})
}
