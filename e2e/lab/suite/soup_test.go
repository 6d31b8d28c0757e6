package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/soup"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// TestSoup does random things to the cluster, in an order that PORTOLAN_SEED
// repeats, and after every few of them asks with packets whether each pod reaches
// what it must, and in the databases whether an address is listed twice. In the end
// all is deleted, and every node must be what it was. Whenever a pod is given an
// address, all zones are asked whether they list it for another. A list that fails is shrunk,
// for as long as PORTOLAN_SOUP_SHRINK says (4m), and printed; PORTOLAN_STEPS names a
// file with a list to be done instead. PORTOLAN_SOUP_STEPS is how many.
func TestSoup(t *testing.T) {
	if layout(t).Zone == "global" {
		t.Skip("what is killed here are daemons of nodes that are zones; TestGlobal… kills central ones")
	}
	steps, budget := soupSteps(t), soupBudget(t)
	t.Logf("%d steps:\n%s", len(steps), soup.Text(steps))
	fresh(t)
	k := &kitchen{t: t, nodes: nodeNames(t)}
	pristine := k.states(t)
	t.Cleanup(func() {
		if err := k.unsabotage(); err != nil {
			t.Error(err)
		}
	})
	err := k.cook(steps)
	if err == nil {
		err = k.clean(pristine)
	}
	if err == nil {
		return
	}
	failed := slices.Clone(k.done)
	t.Errorf("%v\nafter these steps:\n%s", err, soup.Text(failed))
	end, mended := time.Now().Add(budget), true
	more := func() bool { return mended && time.Now().Before(end) }
	short := soup.Shrink(failed, func(part []soup.Step) bool {
		if err := k.mend(pristine); err != nil {
			mended = false // these nodes are not what fresh ones are: nothing would be proved
			t.Logf("shrinking ends: %v", err)
			return false
		}
		again := k.cook(part)
		if again == nil {
			again = k.clean(pristine)
		}
		t.Logf("%d steps: %v", len(part), again)
		return again != nil
	}, more)
	if len(short) < len(failed) {
		t.Logf("%d steps are enough (PORTOLAN_STEPS names a file with them):\n%s", len(short), soup.Text(short))
	}
}

// soupBudget is how long a list that fails may be shrunk: in `make test`, a few runs.
func soupBudget(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PORTOLAN_SOUP_SHRINK")
	if text == "" {
		return 4 * time.Minute
	}
	budget, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("PORTOLAN_SOUP_SHRINK: %v", err)
	}
	return budget
}

// soupSteps are the steps that the environment asks for.
func soupSteps(t *testing.T) []soup.Step {
	t.Helper()
	if file := os.Getenv("PORTOLAN_STEPS"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := soup.Parse(string(text))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		return steps
	}
	seed := orderOf(t)
	n, err := strconv.Atoi(os.Getenv("PORTOLAN_SOUP_STEPS"))
	if err != nil {
		n = 40
	}
	t.Logf("PORTOLAN_SOUP_STEPS=%d", n)
	return soup.Random(seed, n, soup.World{
		Nodes: nodeNames(t), Daemons: slices.Sorted(maps.Keys(soupDaemons())), Pods: 9, Rare: []string{soup.Register, soup.Wipe},
	})
}

// soupDaemons are the daemons by the one word that a step has for them.
func soupDaemons() map[string]string {
	return map[string]string{
		"agent": "portolan-node", "manager": "portolan-manager", "nb": "NB ovsdb-server", "sb": "SB ovsdb-server", "northd": "ovn-northd",
		"ovn-controller": "ovn-controller", "ovs": "OVS ovsdb-server", "vswitchd": "ovs-vswitchd",
	}
}

// kitchen does steps, and knows what must be there after them.
type kitchen struct {
	t     *testing.T
	nodes []string
	given map[string]string // id and subnets of each node
	done  []soup.Step
	pods  map[string]soupPod

	ledger    *soup.Ledger
	disturbed time.Time // when a manager was killed last
}

// soupPod is a pod that must be there.
type soupPod struct {
	node  string
	host  bool
	label string
}

// perLook is how many steps are done before all is looked at.
const perLook = 5

// cook does the steps, and looks at all every few of them and after the last.
func (k *kitchen) cook(steps []soup.Step) error {
	k.done, k.pods, k.ledger = nil, map[string]soupPod{}, soup.NewLedger()
	defer k.watch()()
	for i, s := range steps {
		k.done = append(k.done, s)
		if err := k.step(s); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s, err)
		}
		if (i+1)%perLook == 0 || i+1 == len(steps) {
			if err := k.look(); err != nil {
				return fmt.Errorf("after step %d, %s: %w", i+1, s, err)
			}
		}
		if wrong := k.ledger.Wrong(); wrong != nil {
			return fmt.Errorf("at step %d, %s: %s", i+1, s, strings.Join(wrong, "; "))
		}
	}
	looks, silent := k.ledger.Looks()
	k.t.Logf("%d times pods were given addresses, and zones asked for them; %d times a node's databases were away", looks, silent)
	return nil
}

// step does one; it is no error that there is nothing to do.
func (k *kitchen) step(s soup.Step) error {
	switch s.Do {
	case soup.Create:
		if _, is := k.pods[s.Args[0]]; is {
			return nil
		}
		return k.create(s.Args[0], soupPod{node: s.Args[1], host: len(s.Args) == 3})
	case soup.Delete, soup.Recreate:
		p, is := k.pods[s.Args[0]]
		if !is {
			return nil
		}
		delete(k.pods, s.Args[0])
		if _, err := k.kubectl("delete", "pod", s.Args[0], "--wait="+strconv.FormatBool(s.Do == soup.Recreate), "--timeout=60s"); err != nil {
			return err
		}
		if s.Do == soup.Recreate {
			return k.create(s.Args[0], p)
		}
		return nil
	case soup.Label:
		p, is := k.pods[s.Args[0]]
		if !is {
			return nil
		}
		p.label = s.Args[1]
		k.pods[s.Args[0]] = p
		_, err := k.kubectl("label", "pod", s.Args[0], "--overwrite", "soup="+s.Args[1])
		return err
	case soup.Kill, soup.Restart:
		return k.kill(s)
	case soup.Edit:
		return k.edit(s)
	case soup.Register:
		if err := inTime(time.Minute, k.led); err != nil {
			return err
		}
		return registerAgain(k.t, s.Args[0], func() error { return nil })
	case soup.Sabotage:
		return k.sabotage(s.Args[0])
	case soup.Wipe:
		return absent(faults.Wiped(s.Args[0]).Do(k.t.Context(), k.rig(s.Args[1])))
	}
	return fmt.Errorf("no step is called %s", s.Do)
}

// kill ends a daemon; one that is not there, because it was killed a moment ago, is
// being started.
func (k *kitchen) kill(s soup.Step) error {
	if s.Do == soup.Restart {
		return absent(signal(s.Args[0], "portolan-node", syscall.SIGTERM))
	}
	if s.Args[0] == "manager" {
		k.disturbed = time.Now()
	}
	return absent(k.rig(s.Args[1]).Kill(k.t.Context(), faults.DaemonNamed(soupDaemons()[s.Args[0]])))
}

// absent forgives that what was to be hit is not there.
func absent(err error) error {
	if err == nil || strings.Contains(err.Error(), "does not run on") || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

func (k *kitchen) rig(host string) *faults.Rig {
	return &faults.Rig{All: k.nodes, Node: host, Log: k.t.Logf} // not rigOf: a node's annotation may be nonsense just now
}

// create makes a pod. It is tried again for a while: a pod of its name may still be
// going, and a node that is registered again has no service account's token at once.
func (k *kitchen) create(name string, p soupPod) error {
	file := k.t.TempDir() + "/pod.yaml"
	manifest := podManifest(name, p.node)
	if p.host {
		manifest = strings.Replace(manifest, "spec:\n", "spec:\n  hostNetwork: true\n", 1)
	}
	if err := os.WriteFile(file, []byte(manifest), 0o644); err != nil {
		return err
	}
	err := inTime(60*time.Second, func() error {
		_, err := k.kubectl("create", "-f", file)
		return err
	})
	if p.label = ""; err == nil {
		k.pods[name] = p
	}
	return err
}

// kubectl runs it in the suite's namespace; what it says is in the error.
func (k *kitchen) kubectl(args ...string) (string, error) {
	out, err := command(k.t, append([]string{"kubectl", "-n", namespace}, args...)...)
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out))
	}
	return out, nil
}

// look waits until what must be there is there, and nothing else, and then sends
// packets.
func (k *kitchen) look() error {
	var found map[string]pod
	err := inTime(2*time.Minute, func() (err error) {
		found, err = k.found()
		return err
	})
	if err != nil {
		return err
	}
	if err := inTime(90*time.Second, func() error { return k.listed(found) }); err != nil {
		return err
	}
	if err := inTime(time.Minute, k.allGiven); err != nil { // what was edited is set back
		return err
	}
	if err := inTime(10*time.Second, func() error { return k.entered(found) }); err != nil {
		return err
	}
	// A daemon that is being started again has up to a minute before packets must pass.
	return inTime(60*time.Second, func() error { return k.reach(found) })
}

// found compares pods with those that must be there, and says where they are.
func (k *kitchen) found() (map[string]pod, error) {
	out, err := k.kubectl("get", "pods", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name, DeletionTimestamp string
				Labels                  map[string]string
			}
			Spec   struct{ NodeName string }
			Status struct {
				PodIPs     []struct{ IP netip.Addr }
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	pods, seen := map[string]pod{}, 0
	holders := map[netip.Addr]string{}
	for _, i := range list.Items {
		name := i.Metadata.Name
		want, is := k.pods[name]
		if !is || i.Metadata.DeletionTimestamp != "" {
			return nil, fmt.Errorf("pod %s is still there", name)
		}
		seen++
		ready := slices.ContainsFunc(i.Status.Conditions, func(c struct{ Type, Status string }) bool { return c.Type == "Ready" && c.Status == "True" })
		if !ready || i.Metadata.Labels["soup"] != want.label {
			return nil, fmt.Errorf("pod %s on %s is not ready, or has not its label", name, want.node)
		}
		if want.host {
			continue
		}
		p := pod{Node: want.node, Pod: name, Place: packets.Place{Name: name}}
		for _, ip := range i.Status.PodIPs {
			if holder, taken := holders[ip.IP]; taken {
				return nil, fmt.Errorf("pods %s and %s both have %s", holder, name, ip.IP)
			}
			holders[ip.IP] = name
			p.Addrs = append(p.Addrs, ip.IP)
		}
		if len(p.Addrs) == 0 {
			return nil, fmt.Errorf("pod %s has no address", name)
		}
		p.Addr = p.Addrs[0]
		if p, is = find(p); !is {
			return nil, fmt.Errorf("pod %s: no network namespace of %s has %s", name, want.node, p.Addrs)
		}
		pods[name] = p
	}
	if seen != len(k.pods) {
		return nil, fmt.Errorf("%d pods are there, %d must be", seen, len(k.pods))
	}
	return pods, nil
}

// listed looks for the suite's ports in every zone's northbound database: each is a
// pod's that is there, with its addresses, and none is listed twice.
func (k *kitchen) listed(found map[string]pod) error {
	holders := map[string]string{}
	ports := 0
	for _, host := range k.nodes {
		out, err := node.Run(k.t.Context(), host, "ovn-nbctl", "--db=unix:/run/ovn/ovnnb_db.sock", "--timeout=10", "--format=csv", "--no-headings", "--data=bare",
			"--columns=name,addresses", "find", "Logical_Switch_Port", "external_ids:namespace="+namespace)
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		for line := range strings.Lines(out) {
			name, text, _ := strings.Cut(strings.TrimSpace(line), ",")
			p, is := found[strings.TrimPrefix(name, namespace+"_")]
			if !is || p.Node != host {
				return fmt.Errorf("%s lists port %s, whose pod is not there", host, name)
			}
			ports++
			words := strings.Fields(strings.Trim(text, `"`))
			for _, a := range p.Addrs {
				if !slices.Contains(words, a.String()) {
					return fmt.Errorf("%s lists port %s with %s, and its pod has %s", host, name, text, a)
				}
			}
			for _, w := range words {
				if other, taken := holders[w]; taken {
					return fmt.Errorf("ports %s and %s both have %s", other, name, w)
				}
				holders[w] = name
			}
		}
	}
	if ports != len(found) {
		return fmt.Errorf("%d ports are listed, of %d pods", ports, len(found))
	}
	return nil
}

// reach pings from every pod to each other, to its node and outside.
func (k *kitchen) reach(found map[string]pod) error {
	hosts, away := machines(k.t), outside(k.t)
	for name, p := range found {
		targets := []packets.Place{hosts[p.Node].Place, away}
		for other, q := range found {
			if other != name {
				targets = append(targets, q.Place)
			}
		}
		for _, to := range targets {
			for _, f := range families(k.t) {
				if err := answered(p.Place.In(f), to.In(f)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// answered wants one of three pings answered: the first may be lost while a
// neighbour is resolved.
func answered(from, to packets.Place) error {
	var err error
	for range 3 {
		if _, err = packets.Ping(from, to.Addr, 56, false, time.Second); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s (%s) has no answer from %s (%s): %w", from.Name, from.Addr, to.Name, to.Addr, err)
}

// states is what every node holds.
func (k *kitchen) states(t *testing.T) map[string]state.State {
	t.Helper()
	live(t, k.nodes)
	out := map[string]state.State{}
	for _, n := range k.nodes {
		s, err := state.Take(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		out[n] = s
	}
	k.given = map[string]string{}
	for _, n := range k.nodes {
		k.given[n] = given(t, n)
	}
	return out
}

// clean deletes every pod, and wants every node to be what it was.
func (k *kitchen) clean(pristine map[string]state.State) error {
	k.pods = map[string]soupPod{}
	if err := k.unsabotage(); err != nil {
		return err
	}
	if _, err := k.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=100s"); err != nil {
		return err
	}
	for _, n := range k.nodes {
		if err := inTime(2*time.Minute, func() error { return faults.Live(k.t.Context(), n) }); err != nil {
			return err
		}
		diff, err := state.Settled(k.t.Context(), n, pristine[n], 2*time.Minute)
		if err != nil {
			return err
		}
		if len(diff) > 0 {
			return fmt.Errorf("with all pods deleted, %d rows of %s are different:\n%s", len(diff), n, state.Text(diff))
		}
	}
	return nil
}
