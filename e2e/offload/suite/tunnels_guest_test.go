//go:build guest

package suite

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
	"github.com/portolan-cni/portolan/offload"
)

// twoNetworks are a layer2 and a layer3 network.
const twoNetworks = `---
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: portolan.io/v1alpha1
kind: Network
metadata: {name: blue}
spec: {id: 1, topology: layer2, subnets: [10.1.0.0/24], definitions: [default/blue]}
---
apiVersion: portolan.io/v1alpha1
kind: Network
metadata: {name: green}
spec: {id: 2, topology: layer3, subnets: [10.2.0.0/16/24], definitions: [default/green]}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {namespace: default, name: blue}
spec: {config: '{"cniVersion":"1.0.0","type":"portolan","name":"blue","netAttachDefName":"default/blue","topology":"layer2","subnets":"10.1.0.0/24"}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {namespace: default, name: green}
spec: {config: '{"cniVersion":"1.0.0","type":"portolan","name":"green","netAttachDefName":"default/green","topology":"layer3","subnets":"10.2.0.0/16/24"}'}
`

// nativeConfig has portolan-cni attach a pod to all its networks.
const nativeConfig = `{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`

// onBoth is the annotation of a pod of both networks, by these devices; "": by veth pairs.
func onBoth(blue, green string) string {
	list := "blue,green"
	if blue != "" {
		list = fmt.Sprintf(`[{"name":"blue","deviceID":%q},{"name":"green","deviceID":%q}]`, blue, green)
	}
	return "annotations: {k8s.v1.cni.cncf.io/networks: '" + list + "'}"
}

// softPool is a pool of soft devices; fields are more of its spec.
func softPool(name, resource string, count int, fields string) string {
	return fmt.Sprintf("---\napiVersion: portolan.io/v1alpha1\nkind: DevicePool\nmetadata: {name: %s}\nspec: {resourceName: %s, kind: soft, soft: {count: %d}%s}\n", name, resource, count, fields)
}

// pair is two nodes, each on two wires between which a router is, with a pod on devices
// whose tunnels are the second wire's, and a pod on veth pairs.
type pair struct {
	lab    *rig.Lab
	site   *site
	second rig.Wire
	node   [2]*agent
	taps   []*rig.Tap // on the nodes' four cables
	device [2]*rig.Pod
	plain  [2]*rig.Pod
}

// newPair makes the wires and the router.
func newPair(l *rig.Lab, t *testing.T, more string) *pair {
	t.Helper()
	p := &pair{lab: l, site: newSite(l, t, more, ""), second: l.Wire()}
	router := l.Host("router")
	p.site.wire.Plug(router, "first", "172.30.0.1/24")
	p.second.Plug(router, "second", "172.31.0.1/24")
	router.Run("sysctl", "-w", "net.ipv4.ip_forward=1")
	return p
}

// start starts a node and its pods, the first on devices of a pool, for both networks.
func (p *pair) start(t *testing.T, i int, h *rig.Host, pool string, devices [2]string) {
	t.Helper()
	names := [2]string{fmt.Sprintf("device%d", i+1), fmt.Sprintf("plain%d", i+1)}
	p.site.intent = nodeFile(i+1) + twoNetworks + pool + podFile(i+1, names[0], onBoth(devices[0], devices[1])) + podFile(i+1, names[1], onBoth("", ""))
	p.tell(t, i, h)
	p.node[i] = p.site.start(t, h)
	for n, out := range []*[2]*rig.Pod{&p.device, &p.plain} {
		p.node[i].netns(names[n])
		out[i] = p.node[i].attach(t, call{pod: names[n], config: nativeConfig})
	}
}

// exchange tells the nodes of each other, as the API server does.
func (p *pair) exchange(t *testing.T) {
	t.Helper()
	for i, a := range p.node {
		p.tell(t, i, a.Host)
	}
}

// tell tells a node of the other's tunnel addresses, and of its blocks of networks.
func (p *pair) tell(t *testing.T, i int, h *rig.Host) {
	t.Helper()
	if other := p.node[1-i]; other != nil {
		node := strings.Replace(nodeFile(2-i), fmt.Sprintf(`'["172.30.0.%d"]'`, 3-i), "'"+other.tunnelAddresses(t)+"'", 1)
		h.Write("intent/peer.yaml", node+other.blocks(t))
	}
}

// tunnelAddresses are those that a node says it has, as its annotation does.
func (a *agent) tunnelAddresses(t *testing.T) string {
	t.Helper()
	setting := strings.Trim(strings.TrimSpace(a.Vsctl("get", "Open_vSwitch", ".", "external_ids:ovn-encap-ip")), `"`)
	list, err := json.Marshal(strings.Split(setting, ","))
	if err != nil {
		t.Fatal(err)
	}
	return string(list)
}

// blocks are a node's blocks, as objects.
func (a *agent) blocks(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(a.Path("var/lib/portolan/blocks.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for n, spec := range list {
		fmt.Fprintf(&out, "---\napiVersion: portolan.io/v1alpha1\nkind: AddressBlock\nmetadata: {name: %s.%d}\nspec: %s\n", a.name, n, spec)
	}
	return out.String()
}

// on is a pod's address on a network: net1 is blue, and net2 green.
func on(t *testing.T, p *rig.Pod, ifname string) netip.Addr {
	t.Helper()
	fields := strings.Fields(p.Run("ip", "-o", "-4", "addr", "show", ifname))
	if len(fields) < 4 {
		t.Fatalf("%s has no address on %s: %v", p.Name, ifname, fields)
	}
	return netip.MustParsePrefix(fields[3]).Addr()
}

// journey is a ping between two pods on a network, and the cables and tunnels that its packets
// and their answers are to pass: each "CABLE FROM>TO".
type journey struct {
	ifname      string
	from, to    *rig.Pod
	there, back []string
}

// pass waits until the packets of a ping pass the cables as wanted, and no others.
func (p *pair) pass(t *testing.T, j journey) {
	t.Helper()
	a, b := on(t, j.from, j.ifname), on(t, j.to, j.ifname)
	var want []string
	for _, w := range j.there {
		want = append(want, fmt.Sprintf("%s %s>%s", w, a, b))
	}
	for _, w := range j.back {
		want = append(want, fmt.Sprintf("%s %s>%s", w, b, a))
	}
	slices.Sort(want)
	rig.Wait(t, fmt.Sprintf("%s of %s to %s by %v, and back by %v", j.ifname, j.from.Name, j.to.Name, j.there, j.back), func() error {
		for _, tap := range p.taps {
			tap.Forget()
		}
		if _, err := j.from.Try("ping", "-c2", "-i0.3", "-W3", b.String()); err != nil {
			return err
		}
		var got []string
		for _, tap := range p.taps {
			got = append(got, tap.Ways(a, b)...)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("they pass\n%s", strings.Join(got, "\n"))
		}
		return nil
	})
}

// counting counts packets of the layer2 network between the devices, and between the
// veth pods, while something is done.
func (p *pair) counting(t *testing.T, what string, do func()) (device, plain rig.Tally) {
	t.Helper()
	var counts [2]*rig.Count
	for n, pods := range [][2]*rig.Pod{p.device, p.plain} {
		var err error
		if counts[n], err = rig.Counted(pods[0], pods[1], netip.AddrPortFrom(on(t, pods[1], "net1"), 5002), pace); err != nil {
			t.Fatal(err)
		}
	}
	more(t, counts[:]...)
	do()
	more(t, counts[:]...)
	device, plain = counts[0].Stop(), counts[1].Stop()
	t.Logf("%s: devices: %s; veth pods: %s", what, device, plain)
	return device, plain
}

// pace is the pause between two counted packets.
const pace = 20 * time.Millisecond

// more waits until a hundred packets more are sent.
func more(t *testing.T, counts ...*rig.Count) {
	t.Helper()
	for _, c := range counts {
		want := c.Sent() + 100
		rig.Wait(t, "a hundred packets", func() error {
			if c.Sent() < want {
				return fmt.Errorf("%d are missing", want-c.Sent())
			}
			return nil
		})
	}
}

// check looks which ways packets of both networks take.
func (p *pair) check(t *testing.T) {
	t.Helper()
	p.lab.Run("Layer2", func(t *testing.T) {
		p.pass(t, journey{"net1", p.device[0], p.device[1],
			[]string{"n1-eth1 172.31.0.2>172.31.0.3", "n2-eth1 172.31.0.2>172.31.0.3"},
			[]string{"n2-eth1 172.31.0.3>172.31.0.2", "n1-eth1 172.31.0.3>172.31.0.2"}})
		p.pass(t, journey{"net1", p.plain[0], p.plain[1],
			[]string{"n1-eth0 172.30.0.2>172.30.0.3", "n2-eth0 172.30.0.2>172.30.0.3"},
			[]string{"n2-eth0 172.30.0.3>172.30.0.2", "n1-eth0 172.30.0.3>172.30.0.2"}})
		p.pass(t, journey{"net1", p.device[0], p.plain[1],
			[]string{"n1-eth1 172.31.0.2>172.30.0.3", "n2-eth0 172.31.0.2>172.30.0.3"},
			// To what is on the second wire the first address has no way of its own.
			[]string{"n2-eth1 172.30.0.3>172.31.0.2", "n1-eth1 172.30.0.3>172.31.0.2"}})
	})
	p.lab.Run("Layer3", func(t *testing.T) {
		p.pass(t, journey{"net2", p.device[0], p.device[1],
			[]string{"n1-eth1 172.31.0.2>172.30.0.3", "n2-eth0 172.31.0.2>172.30.0.3"},
			[]string{"n2-eth1 172.31.0.3>172.30.0.2", "n1-eth0 172.31.0.3>172.30.0.2"}})
		p.pass(t, journey{"net2", p.plain[0], p.plain[1],
			[]string{"n1-eth0 172.30.0.2>172.30.0.3", "n2-eth0 172.30.0.2>172.30.0.3"},
			[]string{"n2-eth0 172.30.0.3>172.30.0.2", "n1-eth0 172.30.0.3>172.30.0.2"}})
	})
}

// restart kills the agent of the first node under a flow of both kinds of pods.
func (p *pair) restart(t *testing.T) {
	t.Helper()
	a := p.node[0]
	device, plain := p.counting(t, "the agent is killed, and starts again", func() {
		a.kill()
		a.run()
		a.ready(t)
	})
	if device.Lost+plain.Lost > 0 {
		t.Errorf("packets were lost: %v, %v", device, plain)
	}
}

// TestDebianTunnels: packets of a pool's devices leave, and on a layer2 network come, by
// the NIC of its tunnelInterface; those of veth pods by the first. A restart of the agent
// loses none. An address that goes takes the devices' packets, and nobody else's, to the
// first NIC; it comes back.
func TestDebianTunnels(t *testing.T) {
	l := rig.New(t)
	p := newPair(l, t, "")
	pool := softPool("fast", "portolan.io/fast", 2, ", tunnelInterface: eth1")
	for i := range p.node {
		h := p.site.host(i+1, nil)
		p.taps = append(p.taps, p.site.wire.Tap(h.Name+"-eth0", h.Name+"-eth0"))
		p.second.Plug(h, "eth1", secondAddress(i))
		p.taps = append(p.taps, p.second.Tap(h.Name+"-eth1", h.Name+"-eth1"))
		secondRoute(h, "eth1")
		p.start(t, i, h, pool, [2]string{"soft-fast-0", "soft-fast-1"})
	}
	p.exchange(t)
	p.check(t)
	p.restart(t) // in no subtest, with which the new agent would end
	one := p.node[0]
	l.Run("AddressGoes", func(t *testing.T) {
		long(t)
		_, plain := p.counting(t, "a node's second address goes", func() {
			one.Run("ip", "addr", "del", secondAddress(0), "dev", "eth1")
			one.hasAddresses(t, `["172.30.0.2"]`)
			p.exchange(t)
			p.pass(t, journey{"net1", p.device[0], p.device[1],
				[]string{"n1-eth0 172.30.0.2>172.31.0.3", "n2-eth1 172.30.0.2>172.31.0.3"},
				[]string{"n2-eth1 172.31.0.3>172.30.0.2", "n1-eth0 172.31.0.3>172.30.0.2"}})
		})
		if plain.Lost > 0 {
			t.Errorf("of veth pods packets were lost: %v", plain)
		}
		one.complains(t, "tunnel address 172.31.0.2 is on no network device")
	})
	l.Run("AddressComes", func(t *testing.T) {
		long(t)
		_, plain := p.counting(t, "a node's second address comes", func() {
			one.Run("ip", "addr", "add", secondAddress(0), "dev", "eth1")
			secondRoute(one.Host, "eth1")
			one.hasAddresses(t, `["172.30.0.2","172.31.0.2"]`)
			p.exchange(t)
			p.pass(t, journey{"net1", p.device[0], p.device[1],
				[]string{"n1-eth1 172.31.0.2>172.31.0.3", "n2-eth1 172.31.0.2>172.31.0.3"},
				[]string{"n2-eth1 172.31.0.3>172.31.0.2", "n1-eth1 172.31.0.3>172.31.0.2"}})
		})
		if plain.Lost > 0 {
			t.Errorf("of veth pods packets were lost: %v", plain)
		}
	})
}

// TestOwnTunnels: the same on functions of a NIC that does their tunnels itself
// (tunnelInterface: uplink), beside the node's first: their packets on the layer2 network
// are in its driver, both ways.
func TestOwnTunnels(t *testing.T) {
	long(t)
	l := rig.New(t)
	p := newPair(l, t, "  offload: {mode: hardware}\n")
	for i := range p.node {
		h := p.site.host(i+1, nil)
		p.taps = append(p.taps, p.site.wire.Tap(h.Name+"-eth0", h.Name+"-eth0"))
		n := h.NewNIC(i+1, 2)
		n.Switchdev()
		p.taps = append(p.taps, p.second.Tap(n.Cable(p.second), h.Name+"-eth1"))
		h.Run("ip", "addr", "add", secondAddress(i), "dev", n.PF)
		secondRoute(h, n.PF)
		pool := strings.Replace(poolFile(n.PF, "switchdev", 2), "vfs:", "tunnelInterface: uplink, vfs:", 1)
		p.start(t, i, h, pool, [2]string{n.VFID(0), n.VFID(1)})
	}
	p.exchange(t)
	p.check(t)
	p.restart(t)
	l.Run("Offloaded", func(t *testing.T) {
		far := rig.PodAt(p.node[1].Host, p.device[1].Name, on(t, p.device[1], "net1").String()+"/24")
		stop := talk(t, p.device[0], far)
		defer stop()
		for i, a := range p.node {
			name := fmt.Sprintf("device%d", i+1)
			flowsFrom(t, a.OVS, a.port(t, "default.blue_default_"+name), "tc", "yes")
			flowsFrom(t, a.OVS, "genev_sys_6081", "tc", "yes")
			a.tells(t, name, "net1", offload.InHardware)
		}
	})
}

func secondAddress(i int) string { return fmt.Sprintf("172.31.0.%d/24", i+2) }

// secondRoute has the second NIC reach the first wire, too, by the router.
func secondRoute(h *rig.Host, device string) {
	h.Run("ip", "route", "replace", "default", "via", "172.31.0.1", "dev", device, "metric", "500")
}

// hasAddresses waits until a node says that it has these tunnel addresses.
func (a *agent) hasAddresses(t *testing.T, want string) {
	t.Helper()
	rig.Wait(t, "tunnel addresses "+want, func() error {
		if got := a.tunnelAddresses(t); got != want {
			return fmt.Errorf("they are %s", got)
		}
		return nil
	})
}
