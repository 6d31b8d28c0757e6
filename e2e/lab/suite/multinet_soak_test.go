package suite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/holders"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// TestMultinetSoak lets pods come and go on all nodes, each on a layer2 and a layer3
// network of few addresses, while agents are killed and the manager that leads, in an
// order that PORTOLAN_SEED repeats, for as long as PORTOLAN_ADDRESS_SOAK says (2m). All the
// time it reads every pod's own interfaces, and what pods' annotations tell: no address
// may be on two pods at one moment. In the end each pod has what its network-status says
// and reaches the others, and with all pods deleted every address is free.
func TestMultinetSoak(t *testing.T) {
	lasts, dice := lasting(t, "PORTOLAN_ADDRESS_SOAK", "2m"), rand.New(rand.NewPCG(orderOf(t), 0))
	fresh(t)
	// 30 places, of which one that was given rests a minute; 12 addresses on each node.
	apply(t, definition("few2", `"topology":"layer2","subnets":"10.187.0.0/27,fd00:187::/64"`)+
		definition("few3", `"topology":"layer3","subnets":"10.188.0.0/24/28,fd00:188::/48/64"`))
	c := &crowd{t: t, dice: dice, nodes: nodeNames(t), pods: map[string]string{}, book: holders.NewBook()}
	c.begin()
	c.bites()
	stop := c.look()
	t.Cleanup(stop)
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); <-pace.C {
		c.step()
	}
	c.settle()
	stop()
	c.freed()
}

// lasting is how long a test does things, by an environment variable or as a rule.
func lasting(t *testing.T, variable, rule string) time.Duration {
	t.Helper()
	out, err := time.ParseDuration(cmp.Or(os.Getenv(variable), rule))
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	t.Logf("%s=%v", variable, out)
	return out
}

// orderOf is the seed of a test's random order, which PORTOLAN_SEED repeats.
func orderOf(t *testing.T) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("PORTOLAN_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("PORTOLAN_SEED=%d", seed)
	return seed
}

// most is how many pods there are at once; half as many on average.
const most = 16

// crowd is the pods of the soak.
type crowd struct {
	t     *testing.T
	dice  *rand.Rand
	nodes []string
	pods  map[string]string // node by name
	steps int
	made  int
	kills map[string]int

	book  *holders.Book
	reads atomic.Int64 // of all interfaces
}

// begin makes the first pods.
func (c *crowd) begin() {
	c.kills = map[string]int{}
	manifest := ""
	for _, n := range c.nodes {
		manifest += c.pod(n)
	}
	apply(c.t, manifest)
	attachedPods(c.t)
}

// pod is the manifest of a new one.
func (c *crowd) pod(host string) string {
	name := fmt.Sprintf("p%d", c.made)
	c.made++
	c.pods[name] = host
	return attachedPod(name, host, "few2,few3")
}

// step does one thing. Every twelfth kills an agent, and one in four of those the manager
// that leads as well: so each is killed also in a short run.
func (c *crowd) step() {
	c.steps++
	if c.steps%12 == 6 {
		c.kill("portolan-node", c.nodes[c.dice.IntN(len(c.nodes))])
		if c.steps%48 == 18 {
			if err := killManager(c.t); err != nil {
				c.t.Logf("no manager was killed: %v", err)
				return
			}
			c.kills["portolan-manager"]++
		}
		return
	}
	if create := c.dice.IntN(most) >= len(c.pods); create || len(c.pods) < 3 {
		manifest := ""
		for range 1 + c.dice.IntN(2) {
			manifest += c.pod(c.nodes[c.dice.IntN(len(c.nodes))])
		}
		apply(c.t, manifest)
		return
	}
	names := slices.Sorted(maps.Keys(c.pods))
	name := names[c.dice.IntN(len(names))]
	host := c.pods[name]
	args := []string{"-n", namespace, "delete", "pod", name, "--timeout=60s"}
	switch c.dice.IntN(3) {
	case 0:
		kubectl(c.t, append(args, "--wait=false")...)
	case 1:
		kubectl(c.t, append(args, "--grace-period=0", "--force")...)
	case 2: // and again under its name
		kubectl(c.t, append(args, "--wait=true")...)
		apply(c.t, attachedPod(name, host, "few2,few3"))
		return
	}
	delete(c.pods, name)
}

// kill sends SIGKILL; what was killed a moment ago may not be there again.
func (c *crowd) kill(program, host string) {
	switch err := signal(host, program, syscall.SIGKILL); {
	case err == nil:
		c.kills[program]++
	case absent(err) != nil:
		c.t.Errorf("kill %s on %s: %v", program, host, err)
	}
}

// bites gives a pod's address to another pod, by hand, and wants it to be found.
func (c *crowd) bites() {
	pods := attachedPods(c.t)
	from, to := pods["p0"], pods["p1"]
	address := from.of("few2")[0].IPs[0].String() + "/32"
	ip := func(what string) {
		out, err := exec.Command("nsenter", "--net="+to.Path, "ip", "addr", what, address, "dev", "lo").CombinedOutput()
		if err != nil {
			c.t.Fatalf("ip addr %s: %v: %s", what, err, out)
		}
	}
	ip("add")
	found := c.twice()
	ip("del")
	if len(found) != 1 || !strings.HasPrefix(found[0], from.of("few2")[0].IPs[0].String()+" is in ") {
		c.t.Fatalf("an address was put on a second pod, and what was found is %q: this test sees nothing", found)
	}
	if found := c.twice(); found != nil {
		c.t.Fatalf("before anything was done: %q", found)
	}
}

// look reads interfaces and annotations until it is stopped.
func (c *crowd) look() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	watched, read := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			c.follow(ctx)
		}
	}()
	go func() {
		defer close(read)
		for tick := time.NewTicker(200 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			for _, w := range append(c.twice(), c.book.Wrong()...) {
				c.t.Error(w)
			}
			c.reads.Add(1)
		}
	}()
	return func() { cancel(); <-watched; <-read }
}

// twice lists addresses that are on two pods.
func (c *crowd) twice() []string {
	var places []string
	for _, n := range c.nodes {
		pid, err := node.InitPID(n)
		if err != nil {
			c.t.Error(err)
			continue
		}
		found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/netns/*", pid))
		places = append(places, found...)
	}
	return holders.Twice(places, func(path string) []netip.Addr {
		var out []netip.Addr
		list, _ := interfacesIn(packets.Place{Name: path, Path: path}) // one that is gone has none
		for _, i := range list {
			out = append(out, i.addrs...)
		}
		return out
	})
}

// follow reads one watch of the pods to its end.
func (c *crowd) follow(ctx context.Context) {
	out, err := command(c.t, "kubectl", "-n", namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
	if err != nil {
		return
	}
	c.book.Except(strings.Fields(out))
	cmd := exec.CommandContext(ctx, "../../../bin/lab", "kubectl", "-n", namespace, "get", "pods", "-w", "-o", "json", "--output-watch-events")
	pipe, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	defer func() { _ = cmd.Wait() }()
	for dec := json.NewDecoder(pipe); ; {
		var e struct {
			Type   string
			Object watchedPod
		}
		if err := dec.Decode(&e); err != nil {
			_, _ = io.Copy(io.Discard, pipe)
			return
		}
		if e.Type == "DELETED" {
			c.book.Gone(e.Object.Metadata.UID)
			continue
		}
		c.book.Has(e.Object.Metadata.UID, e.Object.told())
	}
}

// told lists the addresses on all networks that a pod's annotations say.
func (p watchedPod) told() []netip.Addr {
	var status []netStatus
	_ = json.Unmarshal([]byte(p.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]), &status) // none yet
	var given map[string]struct {
		Addrs []netip.Prefix `json:"ip_addresses"`
	}
	_ = json.Unmarshal([]byte(p.Metadata.Annotations["k8s.ovn.org/pod-networks"]), &given)
	all := map[netip.Addr]bool{}
	for _, s := range status {
		for _, a := range s.IPs {
			all[a] = true
		}
	}
	for _, g := range given {
		for _, a := range g.Addrs {
			all[a.Addr()] = true
		}
	}
	var out []netip.Addr
	for a := range all {
		out = append(out, a)
	}
	return sorted(out)
}

// settle waits for the pods that there are, and compares each with what it tells; then
// all are reached from one.
func (c *crowd) settle() {
	c.t.Helper()
	want := slices.Sorted(maps.Keys(c.pods))
	err := inTime(60*time.Second, func() error {
		have := strings.Fields(kubectl(c.t, "-n", namespace, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}"))
		if slices.Sort(have); !slices.Equal(have, want) {
			return fmt.Errorf("pods %v are there, %v must be", have, want)
		}
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
	kubectl(c.t, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=170s")
	pods := attachedPods(c.t)
	var from netPod
	for _, p := range pods {
		ownInterfaces(c.t, p, "few2,few3")
		from = p
	}
	for _, n := range []string{"few2", "few3"} {
		a, _ := from.on(n)
		for _, p := range pods {
			b, ok := p.on(n)
			if !ok || p.Pod == from.Pod {
				continue
			}
			for _, f := range bothFamilies {
				if err := inTime(20*time.Second, func() error { return answered(a.In(f), b.In(f)) }); err != nil {
					c.t.Errorf("%s: %v", f, err)
				}
			}
		}
	}
	addresses, again := c.book.Counts()
	c.t.Logf("%d steps, %d pods created, killed %v; %d addresses were told of, %d times one of another pod than before; %d times all interfaces were read",
		c.steps, c.made, c.kills, addresses, again, c.reads.Load())
	if again == 0 || c.reads.Load() < 10 || c.kills["portolan-node"] == 0 {
		c.t.Error("no address was given again, no agent killed, or nobody looked: this proves nothing")
	}
}

// freed deletes all pods and waits until nobody has an address: blocks go when they have
// no entry, and a node's subnet when no pod on it has an address.
func (c *crowd) freed() {
	c.t.Helper()
	kubectl(c.t, "-n", namespace, "delete", "pods", "--all", "--wait=true", "--timeout=100s")
	err := inTime(left, func() error {
		for _, n := range []string{"suite-few2", "suite-few3"} {
			if list := blocksOf(c.t, n); len(list) > 0 {
				return fmt.Errorf("all pods are deleted, and network %s has AddressBlocks %+v", n, list)
			}
			if used := kubectl(c.t, "get", "network", n, "-o", "jsonpath={.status.addressesUsed}"); used != "" && used != "0" {
				return fmt.Errorf("all pods are deleted, and network %s says that %s addresses are used", n, used)
			}
			if err := noPortsOf(c.t, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
}

// ownInterface is an interface as it is in a namespace.
type ownInterface struct {
	mac   string
	addrs []netip.Addr // but for link-local ones
}

// interfacesIn are those of a place, but for lo, by name; of lo what is put there by hand.
func interfacesIn(p packets.Place) (map[string]ownInterface, error) {
	out := map[string]ownInterface{}
	err := p.Do(func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			list, err := l.Addrs()
			if err != nil {
				return errors.Join(err, errors.New(l.Name))
			}
			i := ownInterface{mac: l.HardwareAddr.String()}
			for _, a := range list {
				prefix, err := netip.ParsePrefix(a.String())
				if err == nil && !prefix.Addr().IsLoopback() && !prefix.Addr().IsLinkLocalUnicast() {
					i.addrs = append(i.addrs, prefix.Addr())
				}
			}
			if l.Flags&net.FlagLoopback == 0 || len(i.addrs) > 0 {
				out[l.Name] = i
			}
		}
		return nil
	})
	return out, err
}
