package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// netPod is a pod with its interfaces on further networks, in the order asked for.
type netPod struct {
	pod
	Interfaces []netStatus
}

// netStatus is one entry of k8s.v1.cni.cncf.io/network-status.
type netStatus struct {
	Name      string       `json:"name"`
	Interface string       `json:"interface"`
	IPs       []netip.Addr `json:"ips"`
	MAC       string       `json:"mac"`
	Default   bool         `json:"default"`
}

// definition is the manifest of a network of ours in the suite's namespace.
func definition(name, config string) string {
	return fmt.Sprintf(`---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: %s, namespace: %s}
spec:
  config: '{"cniVersion":"1.0.0","type":"ovn-k8s-cni-overlay","name":"suite-%s","netAttachDefName":"%s/%s",%s}'
`, name, namespace, name, namespace, name, config)
}

// attachedPod is podManifest with networks.
func attachedPod(name, node, networks string) string {
	return strings.Replace(podManifest(name, node), "labels: {app: suite}}",
		fmt.Sprintf("labels: {app: suite}, annotations: {k8s.v1.cni.cncf.io/networks: '%s'}}", networks), 1)
}

// attachedPods waits for the namespace's pods, and reads what they say of their networks.
func attachedPods(t *testing.T) map[string]netPod {
	t.Helper()
	out, said := map[string]netPod{}, map[string][]netStatus{}
	pods := ready(t)
	if err := inTime(20*time.Second, func() (err error) { said, err = statuses(t); return err }); err != nil {
		t.Fatal(err)
	}
	for name, p := range pods {
		n := netPod{pod: p}
		for i, s := range said[name] {
			if s.Default != (i == 0) || s.Default && !slices.Equal(s.IPs, p.Addrs) {
				t.Errorf("network-status of %s: entry %d is %+v; the default network comes first, with %s", name, i, s, p.Addrs)
			}
			if !s.Default {
				n.Interfaces = append(n.Interfaces, s)
			}
		}
		out[name] = n
	}
	return out
}

// statuses are the pods' network-status, which is written beside the path: an error while
// one that asks for networks has none.
func statuses(t *testing.T) (map[string][]netStatus, error) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
		}
	}
	decode(t, kubectl(t, "-n", namespace, "get", "pods", "-o", "json"), &list)
	out := map[string][]netStatus{}
	for _, p := range list.Items {
		text := p.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]
		if text == "" {
			if p.Metadata.Annotations["k8s.v1.cni.cncf.io/networks"] != "" {
				return nil, fmt.Errorf("pod %s has no network-status", p.Metadata.Name)
			}
			continue
		}
		var said []netStatus
		if err := json.Unmarshal([]byte(text), &said); err != nil {
			return nil, fmt.Errorf("network-status of %s: %w", p.Metadata.Name, err)
		}
		out[p.Metadata.Name] = said
	}
	return out, nil
}

// of finds the pod's interfaces of a network.
func (p netPod) of(network string) []netStatus {
	var out []netStatus
	for _, s := range p.Interfaces {
		if s.Name == namespace+"/"+network {
			out = append(out, s)
		}
	}
	return out
}

// on is the pod's place with its addresses of a network; false where it is not on it.
func (p netPod) on(network string) (packets.Place, bool) {
	list := p.of(network)
	if len(list) == 0 || len(list[0].IPs) == 0 {
		return packets.Place{}, false
	}
	return p.with(list[0]), true
}

// with is the pod's place with an interface's addresses.
func (p netPod) with(s netStatus) packets.Place {
	out := p.Place
	out.Name, out.Addrs, out.Addr = p.Pod+" "+s.Interface+" on "+s.Name, s.IPs, s.IPs[0]
	return out
}

// lanPlace is the namespace of the lab's bridges, where every cable ends.
func lanPlace() packets.Place {
	return packets.Place{Name: "lan", Path: wire.Path(wire.LAN())}
}

// physical makes the lab's second wire a physical network, and waits for it on every
// node; when the test ends it is deleted, and each node must have its NIC back.
func physical(t *testing.T) {
	t.Helper()
	apply(t, `---
apiVersion: portolan.io/v1alpha1
kind: PhysicalNetwork
metadata: {name: suite}
spec: {nic: eth1}
`)
	t.Cleanup(func() {
		kubectl(t, "delete", "physicalnetwork", "suite", "--wait=true", "--timeout=60s")
		for _, n := range nodeNames(t) {
			err := inTime(60*time.Second, func() error {
				if list := strings.Fields(lab(t, "vsctl", n, "list-br")); !slices.Equal(list, []string{"br-ex", "br-int"}) {
					return fmt.Errorf("bridges %v: that of the deleted physical network is still there", list)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", n, err)
			}
		}
	})
	kubectl(t, "wait", "--for=condition=Ready", "physicalnetwork/suite", "--timeout=60s")
}

// The networks of TestMultinet: the second wire's have its outside hosts' subnets.
var suiteNetworks = [][2]string{
	{"blue", `"topology":"layer2","subnets":"10.150.0.0/24,fd00:150::/64"`},
	{"green", `"topology":"layer3","subnets":"10.160.0.0/16/24,fd00:160::/48/64"`},
	{"plain", `"topology":"localnet","physicalNetworkName":"suite","subnets":"172.19.0.0/24,fd00:172:19::/64","excludeSubnets":"172.19.0.64/26,fd00:172:19::100/120"`},
	{"tagged", `"topology":"localnet","physicalNetworkName":"suite","vlanID":100,"subnets":"172.19.100.0/24,fd00:172:19:64::/64","excludeSubnets":"172.19.100.64/26,fd00:172:19:64::100/120"`},
	{"unused", `"topology":"layer2","subnets":"10.170.0.0/24"`},
}

// partaker is who is on a network.
type partaker struct {
	packets.Place
	node string // empty: an outside host
}

// TestMultinet has pods of three nodes on networks of every topology: layer2, layer3,
// and localnets without a VLAN and in one, whose outside hosts are members as well.
// Each member reaches each other in both families; who is not on a network reaches
// nobody of it. An unused network has no rows. What is in the VLAN is tagged on the
// wire, and nothing else.
func TestMultinet(t *testing.T) {
	fresh(t)
	physical(t)
	manifest := ""
	for _, n := range suiteNetworks {
		manifest += definition(n[0], n[1])
	}
	apply(t, manifest)
	asked := map[string]string{"a": "blue,green,plain,tagged", "b": "blue,green,plain,tagged", "c": "blue,plain", "d": "green,tagged", "none": ""}
	apply(t, attachedPod("a", "ovn-worker", asked["a"])+attachedPod("b", "ovn-worker2", asked["b"])+
		attachedPod("c", "ovn-control-plane", asked["c"])+attachedPod("d", "ovn-worker", asked["d"])+podManifest("none", "ovn-worker2"))
	pods := attachedPods(t)
	for name, want := range asked {
		for i, n := range strings.FieldsFunc(want, func(r rune) bool { return r == ',' }) {
			got := pods[name].of(n)
			if len(got) != 1 || got[0].Interface != fmt.Sprintf("net%d", i+1) || len(got[0].IPs) != 2 || got[0].MAC == "" {
				t.Fatalf("pod %s on %s: network-status says %+v", name, n, got)
			}
		}
	}
	for _, n := range []string{"blue", "green", "plain", "tagged"} {
		on, off := membersOf(t, pods, n)
		t.Run(n+"/reaches", func(t *testing.T) { reaches(t, on) })
		t.Run(n+"/is-closed", func(t *testing.T) { closed(t, off, on) })
	}
	t.Run("frames-stay", func(t *testing.T) { framesStay(t, pods) })
	t.Run("tag", func(t *testing.T) { tagOnTheWire(t, pods["a"]) })
	t.Run("unused-has-no-rows", unusedHasNoRows)
}

// membersOf lists who is on a network, and who is not.
func membersOf(t *testing.T, pods map[string]netPod, network string) (on, off []partaker) {
	t.Helper()
	for _, p := range pods {
		if place, ok := p.on(network); ok {
			on = append(on, partaker{place, p.Node})
		} else {
			off = append(off, partaker{p.Place, p.Node})
		}
	}
	for _, w := range layout(t).Wire {
		host := partaker{packets.Place{Name: w.Name, Path: wire.Path(wire.Namespace(w.Name)), Addr: w.IPs()[0], Addrs: w.IPs()}, ""}
		if (network == "plain") == (w.VLAN == 0) && network != "blue" && network != "green" {
			on = append(on, host)
		} else {
			off = append(off, host)
		}
	}
	return on, off
}

var bothFamilies = []packets.Family{packets.IPv4, packets.IPv6}

// reaches asks everybody by everybody, in both families.
func reaches(t *testing.T, on []partaker) {
	for _, from := range on {
		for _, to := range on {
			if from.Path == to.Path {
				continue
			}
			for _, f := range bothFamilies {
				if err := inTime(20*time.Second, func() error { return answered(from.In(f), to.In(f)) }); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
		}
	}
}

// closed asks members by those who are none, all at once: each question that is not
// answered takes its whole time.
func closed(t *testing.T, off, on []partaker) {
	var all sync.WaitGroup
	for _, from := range off {
		for _, to := range on {
			for _, f := range bothFamilies {
				all.Add(1)
				go func() {
					defer all.Done()
					target := to.In(f)
					if _, err := packets.Ping(from.Place, target.Addr, 56, false, time.Second); err == nil {
						t.Errorf("%s has an answer from %s (%s)", from.Name, target.Name, target.Addr)
					}
				}()
			}
		}
	}
	all.Wait()
}

// unusedHasNoRows asks every zone for the switches of networks.
func unusedHasNoRows(t *testing.T) {
	for _, host := range zoneHosts(t) {
		list := switches(t, host)
		if strings.Contains(list, "suite.unused") || !strings.Contains(list, "suite.blue") || !strings.Contains(list, "suite.plain") {
			t.Errorf("%s has switches %q: those of networks that its pods use, and no other", host, strings.Fields(list))
		}
	}
}

// zoneHosts are the nodes that have a zone's databases.
func zoneHosts(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, n := range layout(t).Machines {
		out = append(out, n.Name)
	}
	if layout(t).Zone == "global" {
		return out[:1]
	}
	return out
}

// switches are the names of the logical switches in a node's databases.
func switches(t testing.TB, host string) string {
	t.Helper()
	return lab(t, "nbctl", "--node", host, "--bare", "--columns=name", "list", "Logical_Switch")
}

// forgedFrom makes a frame of an interface's own addresses, which port security lets
// pass, to a MAC; marked tells it from all else.
func forgedFrom(s netStatus, to net.HardwareAddr, dst netip.Addr) []byte {
	mac, _ := net.ParseMAC(s.MAC)
	f := packets.Frame{Src: mac, Dst: to}
	return f.UDP(netip.AddrPortFrom(s.IPs[0], 7), netip.AddrPortFrom(dst, 7), []byte(frameMark))
}

const frameMark = "portolan-suite-frame"

func marked(frame []byte) bool { return bytes.Contains(frame, []byte(frameMark)) }

// framesStay sends frames on one network to the MACs of interfaces of others, whatever
// the addresses say: they arrive where the MAC is on that network, and nowhere else.
func framesStay(t *testing.T, pods map[string]netPod) {
	const times = 20
	type end struct {
		name, network string
		*packets.Sniffer
	}
	sender, from := pods["a"], pods["a"].of("blue")[0]
	var ends []end
	for _, p := range []netPod{pods["b"], pods["c"], pods["d"]} {
		for _, i := range p.Interfaces {
			s, err := packets.Sniff(p.Place, i.Interface, marked)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, end{p.Pod + " " + i.Interface, i.Name, s})
			mac, err := net.ParseMAC(i.MAC)
			if err != nil {
				t.Fatal(err)
			}
			if err := packets.Send(sender.Place, from.Interface, forgedFrom(from, mac, i.IPs[0]), times); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = inTime(5*time.Second, func() error { // for those that should arrive
		for _, e := range ends {
			if e.network == from.Name && e.Count() < times {
				return errors.New("under way")
			}
		}
		return nil
	})
	for _, e := range ends {
		got, want := len(e.Close()), 0
		if e.network == from.Name {
			want = times
		}
		if got != want {
			t.Errorf("%d of %d frames of network %s arrived at %s on %s, want %d", got, times, from.Name, e.name, e.network, want)
		}
	}
}

// tagOnTheWire looks at the cable of the pod's node: what its interface in the VLAN
// sends has the tag, and what its other one sends has none.
func tagOnTheWire(t *testing.T, p netPod) {
	node, err := layout(t).Node(p.Node)
	if err != nil {
		t.Fatal(err)
	}
	cable := fmt.Sprintf("n%d-1", node.Number)
	for network, want := range map[string]int{"tagged": 100, "plain": 0} {
		from := p.of(network)[0]
		on, _ := p.on(network)
		mac, err := net.ParseMAC(from.MAC)
		if err != nil {
			t.Fatal(err)
		}
		s, err := packets.Sniff(lanPlace(), cable, func(frame []byte) bool { return len(frame) > 12 && bytes.Equal(frame[6:12], mac) })
		if err != nil {
			t.Fatal(err)
		}
		_, _ = packets.Ping(on, on.Addr.Prev(), 56, false, time.Second) // an ARP request will do
		for _, w := range layout(t).Wire {
			if w.VLAN == want {
				if err := answered(on, packets.Place{Name: w.Name, Addr: w.IPs()[0]}); err != nil {
					t.Error(err)
				}
			}
		}
		tags := map[int]int{}
		for _, frame := range s.Close() {
			tags[packets.VLAN(frame)]++
		}
		if len(tags) != 1 || tags[want] == 0 {
			t.Errorf("%s: frames on the wire by their tag: %v, want all with %d (0: none)", network, tags, want)
		}
	}
}
