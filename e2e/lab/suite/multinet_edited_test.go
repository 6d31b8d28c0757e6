package suite

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// batch is a pod of a network on each node.
func batch(t *testing.T, name, network string) string {
	out := ""
	for _, n := range nodeNames(t) {
		out += attachedPod(name+"-"+n, n, network)
	}
	return out
}

// TestMultinetEdited edits a definition while its pods are being created, twice: what is
// excluded, which takes effect for the next pods, and then subnets, which does not while
// pods use the network. All pods come up on the network that was accepted; the Network
// and an Event say what differs; nothing is left of them.
func TestMultinetEdited(t *testing.T) {
	fresh(t)
	const accepted, excluded, wanted = "10.184.0.0/25", "10.184.0.0/26", "10.185.0.0/25"
	edited := func(subnets, exclude string) {
		t.Helper()
		config := fmt.Sprintf(`"topology":"layer2","subnets":"%s"`, subnets)
		if exclude != "" {
			config += fmt.Sprintf(`,"excludeSubnets":"%s"`, exclude)
		}
		apply(t, definition("edited", config))
	}
	edited(accepted, "")
	apply(t, batch(t, "before", "edited"))
	attachedPods(t)
	apply(t, batch(t, "early", "edited"))
	edited(accepted, excluded)
	apply(t, batch(t, "amid", "edited"))
	edited(wanted, "10.185.0.0/26")
	apply(t, batch(t, "late", "edited"))

	differs := fmt.Sprintf("subnets is %s, accepted is %s; excludeSubnets is 10.185.0.0/26, accepted is %s; while the network is in use, what is accepted stays in force", wanted, accepted, excluded)
	stays := fmt.Sprintf(`["%s"] ["%s"] True `, accepted, excluded)
	network := func(want string) {
		t.Helper()
		err := inTime(20*time.Second, func() error {
			got := kubectl(t, "get", "network", "suite-edited", "-o", `jsonpath={.spec.subnets} {.spec.excludeSubnets} {.status.conditions[0].status} {.status.conditions[0].reason} {.status.conditions[0].message}`)
			if got != want {
				return fmt.Errorf("the Network says\n%s, want\n%s", got, want)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	network(stays + fmt.Sprintf("Conflict %s/edited: %s", namespace, differs))
	apply(t, batch(t, "after", "edited"))
	pods := attachedPods(t)
	if n := 5 * len(nodeNames(t)); len(pods) != n {
		t.Errorf("%d pods, want %d", len(pods), n)
	}
	addressesWithin(t, pods, netip.MustParsePrefix(accepted), netip.MustParsePrefix(excluded))
	from, _ := pods["after-ovn-worker"].on("edited")
	for name, p := range pods {
		to, ok := p.on("edited")
		if !ok || name == "after-ovn-worker" {
			continue
		}
		if err := inTime(20*time.Second, func() error { return answered(from, to) }); err != nil {
			t.Error(err)
		}
	}
	err := inTime(20*time.Second, func() error {
		if list := kubectl(t, "-n", namespace, "get", "events", "--field-selector", "involvedObject.name=edited", "-o", "jsonpath={.items[*].message}"); !strings.Contains(list, differs) {
			return fmt.Errorf("no Event of the definition says %q: %s", differs, list)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	edited(accepted, excluded)
	network(stays + "Accepted ")

	kubectl(t, "-n", namespace, "delete", "pods", "--all", "--wait=true", "--timeout=100s")
	if err := inTime(30*time.Second, func() error { return noPortsOf(t, "suite-edited") }); err != nil {
		t.Error(err)
	}
}

// TestMultinetEditedAtOnce has networks that nobody uses, and applies an edit of their subnets
// and the first pods that use them in one go: the pods are all on the one or all on the
// other, the Network says which, and they reach each other.
func TestMultinetEditedAtOnce(t *testing.T) {
	fresh(t)
	networks := []struct{ name, config, before, after string }{
		{"once2", `"topology":"layer2","subnets":"%s"`, "10.193.0.0/24", "10.194.0.0/24"},
		{"once3", `"topology":"layer3","subnets":"%s"`, "10.195.0.0/20", "10.196.0.0/20"},
	}
	first, second := "", ""
	for _, n := range networks {
		first += definition(n.name, fmt.Sprintf(n.config, n.before))
		second += definition(n.name, fmt.Sprintf(n.config, n.after))
	}
	apply(t, first)
	err := inTime(60*time.Second, func() error {
		list := kubectl(t, "get", "networks", "-o", `jsonpath={range .items[?(@.status.conditions[0].status=="True")]}{.metadata.name} {end}`)
		if !strings.Contains(list, "suite-once2 ") || !strings.Contains(list, "suite-once3 ") {
			return fmt.Errorf("networks that are ready: %s", list)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	apply(t, second+batch(t, "p", "once2,once3"))
	pods := attachedPods(t)
	from := pods["p-ovn-worker"]
	for _, n := range networks {
		accepted := kubectl(t, "get", "network", "suite-"+n.name, "-o", `jsonpath={.spec.subnets[0]} {.status.conditions[0].reason}`)
		t.Logf("network %s: edited and used at once, accepted is %s", n.name, accepted)
		subnet, reason, _ := strings.Cut(accepted, " ")
		if !strings.HasPrefix(subnet, map[bool]string{true: n.before, false: n.after}[reason == "Conflict"]) {
			t.Errorf("network %s: accepted is %s, and %s was to become %s", n.name, accepted, n.before, n.after)
		}
		within := netip.MustParsePrefix(n.after)
		if reason == "Conflict" {
			within = netip.MustParsePrefix(n.before)
		}
		a, _ := from.on(n.name)
		for _, p := range pods {
			b, ok := p.on(n.name)
			if !ok || !within.Contains(b.Addr) {
				t.Errorf("pod %s has %+v, want an address of %s", p.Pod, p.Interfaces, within)
				continue
			}
			if p.Pod == from.Pod {
				continue
			}
			if err := inTime(20*time.Second, func() error { return answered(a, b) }); err != nil {
				t.Error(err)
			}
		}
	}
}

// addressesWithin looks whether each pod has an address of its own of what is accepted,
// and those that came after the edits none that is excluded.
func addressesWithin(t *testing.T, pods map[string]netPod, accepted, excluded netip.Prefix) {
	t.Helper()
	holders := map[netip.Addr]string{}
	for name, p := range pods {
		list := p.of("edited")
		if len(list) != 1 || len(list[0].IPs) != 1 || !accepted.Contains(list[0].IPs[0]) {
			t.Errorf("pod %s has %+v, want an address of %s", name, p.Interfaces, accepted)
			continue
		}
		a := list[0].IPs[0]
		if strings.HasPrefix(name, "after") && excluded.Contains(a) {
			t.Errorf("pod %s has %s, and %s was excluded before it was created", name, a, excluded)
		}
		if holders[a] != "" {
			t.Errorf("pods %s and %s both have %s", holders[a], name, a)
		}
		holders[a] = name
	}
}

// noPortsOf looks for what pods leave of a network: ports in any zone, and entries of
// blocks that are of a pod.
func noPortsOf(t *testing.T, network string) error {
	t.Helper()
	for _, host := range zoneHosts(t) {
		for _, port := range strings.Fields(lab(t, "nbctl", "--node", host, "--bare", "--columns=name", "list", "Logical_Switch_Port")) {
			if strings.Contains(port, namespace) {
				return fmt.Errorf("%s has port %s", host, port)
			}
		}
	}
	for _, e := range entriesOf(t, network) {
		if e.Pod != "" {
			return fmt.Errorf("an AddressBlock of network %s has an entry of pod %s: %v", network, e.Pod, e.Addresses)
		}
	}
	return nil
}

// blockEntry is an entry of an AddressBlock.
type blockEntry struct {
	Addresses  []netip.Prefix
	Pod, Claim string
}

// entriesOf are the entries of a network's blocks.
func entriesOf(t *testing.T, network string) []blockEntry {
	t.Helper()
	var out []blockEntry
	for _, b := range blocksOf(t, network) {
		out = append(out, b.Entries...)
	}
	return out
}

// addressBlock is what a test asks of an AddressBlock.
type addressBlock struct {
	Network, Node string
	Slot          int
	Entries       []blockEntry
}

// blocksOf are the AddressBlocks of a network.
func blocksOf(t *testing.T, network string) []addressBlock {
	t.Helper()
	var list struct{ Items []struct{ Spec addressBlock } }
	if err := json.Unmarshal([]byte(kubectl(t, "get", "addressblocks", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	var out []addressBlock
	for _, i := range list.Items {
		if i.Spec.Network == network {
			out = append(out, i.Spec)
		}
	}
	slices.SortFunc(out, func(a, b addressBlock) int { return a.Slot - b.Slot })
	return out
}
