//go:build kernel

package cni_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/delegate"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// serverConfig tells a server process what to be.
type serverConfig struct {
	Socket  string
	Subnets []netip.Prefix
	Pods    []cni.Pod
	KillAt  string // "ADD/configure": it kills itself there; "ADD/run-plugins/2": at the second time
	Plugins string // the directory of plugins of others; "": none are run
	Durable bool   // the server has a journal, and net2 and net3 are shared networks
	Kernel  bool   // the kernel datapath's settings: nothing concealed, checksums offloaded
	// Devices that interfaces get, by KEY, or POD/KEY; their records are in the socket's directory.
	Devices map[string]string
}

// serverMain is a server process. On stdin it reads commands: "bound NS/NAME",
// "gone UID", "select SELECTION", "unbind", "compare", "owners", "networks", "stages"; each
// is answered by a line.
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
	links, err := cni.NewVeths(!sc.Kernel, intent.AttachmentGroup)
	if err != nil {
		return err
	}
	if !sc.Kernel {
		kernel, err := host.Open(filepath.Dir(sc.Socket))
		if err != nil {
			return err
		}
		defer kernel.Close()
		if err := kernel.HideAttachments(ctx); err != nil {
			return err
		}
	}
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: sc.Subnets})
	if err != nil {
		return err
	}
	pods := cni.NewPodStore()
	for _, p := range sc.Pods {
		pods.Set(p)
	}
	c := cni.Config{Pods: pods, Ports: ports, Links: links, Publisher: publisherFunc(func(cni.Pod) {}), Pool: pool,
		MTU: 1400, Generation: os.Getpid(), Timeout: 10 * time.Second, Patience: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))}
	networks, err := networksOf(ctx, &c, sc)
	if err != nil {
		return err
	}
	times := &stageTimes{times: make(map[string][]time.Duration)}
	listen(&c, sc, times)
	if c.Keeper, err = keeperOf(sc, ports); err != nil {
		return err
	}
	c.Devices = chosen(sc.Devices)
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
	(&obeyer{agent, pods, pool, networks, times}).obey(ctx)
	return nil
}

// networksOf gives a server's configuration its networks, and what they need.
func networksOf(ctx context.Context, c *cni.Config, sc serverConfig) (*fourNetworks, error) {
	networks, err := newFourNetworks()
	if err != nil {
		return nil, err
	}
	c.Networks = networks
	networks.resources = map[string]bool{}
	for key := range sc.Devices {
		networks.resources[key] = true
	}
	if sc.Durable {
		dir := filepath.Dir(sc.Socket)
		journal, err := cni.OpenJournal(filepath.Join(dir, "journal"), slog.Default())
		if err != nil {
			return nil, err
		}
		c.Journal = journal
		networks.share(dir)
	}
	if sc.Plugins != "" {
		c.Networks = mixedNetworks{networks}
		plugins, err := delegate.Open(ctx, delegate.Config{BinDir: sc.Plugins, State: filepath.Join(filepath.Dir(sc.Socket), "plugins")})
		if err != nil {
			return nil, err
		}
		c.Plugins = plugins
	}
	return networks, nil
}

// listen has a server's ears, and its end where that is asked for.
func listen(c *cni.Config, sc serverConfig, times *stageTimes) {
	c.Observe = times.observe
	var mu sync.Mutex // guards seen
	seen := map[string]int{}
	c.AtStage = func(command, stage string) {
		at := command + "/" + stage
		mu.Lock()
		seen[at]++
		times := seen[at]
		mu.Unlock()
		if sc.KillAt == at || sc.KillAt == fmt.Sprint(at, "/", times) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
	}
	c.Repaired = func(r cni.Repair) { times.repaired(r.What + " " + r.Pod.String()) }
	c.Status = func(_ cni.Pod, all []cni.Attachment) {
		var words []string
		for _, a := range all {
			words = append(words, statusWords(a))
		}
		times.status.Store(strings.Join(words, ", "))
	}
}

// stageTimes collects what Observe and Status are told.
type stageTimes struct {
	mu      sync.Mutex // guards repairs and times
	repairs []string
	times   map[string][]time.Duration

	status atomic.Value // what Status was told last, in words
}

func (s *stageTimes) repaired(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repairs = append(s.repairs, what)
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

// obeyer does what the test says.
type obeyer struct {
	agent    *cni.Agent
	pods     *cni.PodStore
	pool     *alloc.Pool
	networks *fourNetworks
	times    *stageTimes
}

func (o *obeyer) obey(ctx context.Context) {
	agent, pods, pool, times := o.agent, o.pods, o.pool, o.times
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
		case "select":
			p := pods.List()[0]
			p.Selection = arg
			pods.Set(p)
			err = agent.Prepare(ctx, p)
		case "unbind":
			pods.Delete("shop", "web", "uid-web")
		case "compare": // what may be on its way is set right the second time
			times.repairs = []string{}
			if err = errors.Join(agent.Compare(ctx), agent.Compare(ctx)); err == nil {
				fmt.Println("repaired", times.repairs)
				continue
			}
		case "networks":
			fmt.Println("networks", o.networks)
			continue
		case "owners":
			fmt.Println("owners", pool.Owners())
			continue
		case "status":
			fmt.Println(times.status.Load())
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

// left lists what is in OVS, kernel and pool that belongs to pods.
func (s *server) left() string {
	s.t.Helper()
	links, err := cni.NewVeths(false, intent.AttachmentGroup)
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
	return fmt.Sprintf("veths=%d ports=%d %s", len(veths), len(strings.Fields(ports)), s.must("owners"))
}

const clean = "veths=0 ports=0 owners []"

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
