package tour

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// What e2e/demo/devices.yaml offers on each node.
const (
	resource = "portolan.io/demo"
	variable = "PCIDEVICE_PORTOLAN_IO_DEMO"
	perNode  = 4
)

// devices gives pods devices of a pool, and takes all of it away again.
func (g *guide) devices(ctx context.Context) error {
	err := g.offered(ctx)
	if err == nil {
		err = g.given(ctx)
	}
	if gone := g.withdrawn(context.WithoutCancel(ctx)); err == nil {
		err = gone
	}
	return err
}

// offered makes the pool, and shows that the kubelets have devices to give.
func (g *guide) offered(ctx context.Context) error {
	if _, err := g.show(ctx, "kubectl", "apply", "-f", "e2e/demo/devices.yaml"); err != nil {
		return err
	}
	_, ready := g.show(ctx, "kubectl", "wait", "--for=condition=Ready", "devicepool/demo", "--timeout=60s")
	err := eventually(ctx, 60*time.Second, func() (bool, error) {
		has, err := g.allocatable(ctx)
		return err == nil && !slices.ContainsFunc(g.nodes, func(m machine) bool { return has[m.Name] != fmt.Sprint(perNode) }), err
	})
	if _, bad := g.show(ctx, "kubectl", "get", "devicepools"); bad != nil {
		return bad
	}
	has, bad := g.allocatable(ctx)
	if bad != nil {
		return bad
	}
	g.gap()
	g.claim(claim{what: "DevicePool demo", want: "Ready", got: "Ready", err: ready})
	for _, m := range g.nodes {
		g.claim(equal("kubelet of "+m.Name+", what it has of "+resource, perNode, has[m.Name], nil))
	}
	return err
}

// allocatable is how many devices each node's kubelet has to give, "" where it knows none.
func (g *guide) allocatable(ctx context.Context) (map[string]string, error) {
	text, err := g.lab(ctx, "kubectl", "get", "nodes", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ Allocatable map[string]string }
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("list of nodes: %w", err)
	}
	out := map[string]string{}
	for _, n := range list.Items {
		out[n.Metadata.Name] = n.Status.Allocatable[resource]
	}
	return out, nil
}

// given makes pods that request devices.
func (g *guide) given(ctx context.Context) error {
	g.note("A definition names the resource, a Deployment's pods request one device each, and the scheduler counts.")
	for _, args := range [][]string{
		{"apply", "-f", "e2e/demo/offloaded.yaml"},
		{"-n", namespace, "rollout", "status", "deployment/offloaded", "--timeout=85s"},
		{"-n", namespace, "get", "pods", "-l", "app=offloaded", "-o", "wide"},
	} {
		if _, err := g.show(ctx, append([]string{"kubectl"}, args...)...); err != nil {
			return err
		}
	}
	pods, err := g.labelled(ctx, "offloaded")
	if err != nil {
		return err
	}
	var list []multi
	for _, p := range pods {
		m, err := attachedOf(p)
		if err != nil {
			return err
		}
		list = append(list, m)
	}
	a, b, err := apart(list)
	if err != nil {
		return err
	}
	for _, part := range []func() error{
		func() error { return g.handedOver(ctx, list, a) },
		func() error { return g.overDevices(ctx, a, b) },
		func() error { return g.watched(ctx, a) },
		func() error { return g.refused(ctx) },
		func() error { return g.givenBack(ctx, a) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// apart finds two pods of two nodes.
func apart(list []multi) (a, b multi, err error) {
	for _, b := range list {
		if a = list[0]; b.node != a.node {
			return a, b, nil
		}
	}
	return a, b, fmt.Errorf("%d pods, which are not on two nodes", len(list))
}

// handedOver compares what the kubelet has given to containers with what the pods'
// interfaces are.
func (g *guide) handedOver(ctx context.Context, list []multi, a multi) error {
	g.note("The container knows its device as it knows a virtual function's; the representor is the pod's port in br-int.")
	id, err := g.show(ctx, "kubectl", "-n", namespace, "exec", a.Name, "--", "sh", "-c", "echo $"+variable)
	if err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "get", "pod", a.Name, "-o", annotationStatus); err != nil {
		return err
	}
	if _, err := g.show(ctx, "vsctl", a.node, "--columns=name,external_ids", "list", "Interface", representor(id)); err != nil {
		return err
	}
	g.gap()
	owners := map[string]string{}
	for _, m := range list {
		text, err := g.lab(ctx, "kubectl", "-n", namespace, "exec", m.Name, "--", "sh", "-c", "echo $"+variable)
		if err != nil {
			return err
		}
		id := strings.TrimSpace(text)
		if other := owners[m.node+" "+id]; other != "" {
			err = fmt.Errorf("pod %s has it, too", other)
		}
		owners[m.node+" "+id] = m.Name
		s, bad := m.on("fast")
		mac, bad2 := g.lab(ctx, "vsctl", m.node, "get", "Interface", representor(id), "external_ids:attached_mac")
		g.claim(equal(fmt.Sprintf("device %s of %s is pod %s's alone, and its port has the MAC", id, m.node, m.Name), s.MAC, strings.Trim(mac, "\"\n"), errors.Join(err, bad, bad2)))
	}
	return nil
}

// representor is the end of a soft device that is in the switch.
func representor(id string) string { return "sr-" + strings.TrimPrefix(strings.TrimSpace(id), "soft-") }

// overDevices sends from node to node by the devices, in both families.
func (g *guide) overDevices(ctx context.Context, a, b multi) error {
	to, err := b.on("fast")
	if err != nil {
		return err
	}
	g.note("From node to node, one switch; then one TCP stream, whose rate is this machine's and says nothing of a NIC.")
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", a.Name, "--", "ping", "-c", "3", "-i", "0.2", to.IPs[0].String()); err != nil {
		return err
	}
	g.gap()
	for _, ip := range to.IPs {
		e, err := packets.Ping(a.Place, ip, 56, false, patience)
		g.claim(echoed(a.Name+" → "+b.Name+" on fast", e, ip, 64, err))
	}
	there := b.Place
	there.Addr = to.IPs[0]
	rate, err := packets.Stream(a.Place, there, streamed)
	g.claim(claim{what: "a TCP stream from node to node on fast", want: "arrives", got: "arrives", err: err})
	if err == nil {
		fmt.Fprintf(g.out, "  %s\n", bits(rate))
	}
	return nil
}

// watched shows who has which device, where the packets are moved, and what a user is told
// who would rather have hardware.
func (g *guide) watched(ctx context.Context, a multi) error {
	g.note("Who has which device of the node, by its agent; then where a pod's packets are moved, and why not in a NIC.")
	name := namespace + "/" + a.Name
	id, err := g.lab(ctx, "kubectl", "-n", namespace, "exec", a.Name, "--", "sh", "-c", "echo $"+variable)
	if err != nil {
		return err
	}
	id = strings.TrimSpace(id)
	text, err := g.show(ctx, "portolan", "devices", a.node)
	if err != nil {
		return err
	}
	g.gap()
	g.claim(holds("portolan devices "+a.node, "says that "+name+" has "+id, lineOf(text, "demo", id, "soft", "-", representor(id), "veth", "switchdev", "well", name)))
	text, err = g.show(ctx, "portolan", "offload", name)
	if err != nil {
		return err
	}
	g.gap()
	g.claim(holds("portolan offload "+name, "says that there is no NIC under it", strings.Contains(text, "userspace-datapath")))
	says := ""
	err = eventually(ctx, 20*time.Second, func() (bool, error) {
		var err error
		says, err = g.events(ctx, a.Name)
		return strings.Contains(says, "is soft"), err
	})
	if _, bad := g.show(ctx, "kubectl", "-n", namespace, "get", "events", "--field-selector", "involvedObject.name="+a.Name+",reason!=Pulled,reason!=Created,reason!=Started,reason!=Scheduled",
		"-o", "custom-columns=REASON:.reason,MESSAGE:.message"); bad != nil {
		return bad
	}
	g.gap()
	g.claim(claim{what: "an Event of " + a.Name, want: "says that its device is soft", got: "says that its device is soft", err: err})
	return nil
}

// events are the messages of a pod's.
func (g *guide) events(ctx context.Context, pod string) (string, error) {
	return g.lab(ctx, "kubectl", "-n", namespace, "get", "events", "--field-selector", "involvedObject.name="+pod, "-o", "jsonpath={.items[*].message}")
}

// refused starts a pod that takes hardware or nothing.
func (g *guide) refused(ctx context.Context) error {
	g.note(`Whoever would rather have no pod than one in software writes "offload": "require".`)
	if _, err := g.show(ctx, "kubectl", "apply", "-f", "e2e/demo/strict.yaml"); err != nil {
		return err
	}
	err := eventually(ctx, 60*time.Second, func() (bool, error) {
		says, err := g.events(ctx, "strict")
		return strings.Contains(says, `"offload": "require"`), err
	})
	if _, bad := g.show(ctx, "kubectl", "-n", namespace, "get", "events", "--field-selector", "involvedObject.name=strict,type=Warning", "-o", "custom-columns=REASON:.reason,MESSAGE:.message"); bad != nil {
		return bad
	}
	phase, bad := g.lab(ctx, "kubectl", "-n", namespace, "get", "pod", "strict", "-o", "jsonpath={.status.phase}")
	if bad != nil {
		return bad
	}
	g.gap()
	g.claim(claim{what: "an Event of strict", want: "says that it requires hardware", got: "says that it requires hardware", err: err})
	g.claim(equal("pod strict", "Pending", phase, nil))
	_, err = g.lab(ctx, "kubectl", "-n", namespace, "delete", "pod", "strict", "--wait=true", "--timeout=60s")
	return err
}

// givenBack deletes pods: their devices are the node's again.
func (g *guide) givenBack(ctx context.Context, a multi) error {
	g.note("As many pods as there are devices: no function is left on the nodes. The pods go, and each function is its node's again.")
	m, err := g.machine(a.node)
	if err != nil {
		return err
	}
	for _, n := range []int{2 * perNode, 0} {
		if _, err := g.show(ctx, "kubectl", "-n", namespace, "scale", "deployment/offloaded", fmt.Sprintf("--replicas=%d", n)); err != nil {
			return err
		}
		want, free := perNode-n/2, 0
		err := eventually(ctx, 85*time.Second, func() (bool, error) {
			ends, err := softOf(m)
			free = strings.Count(ends, "sv-")
			return free == want && err == nil, err
		})
		if _, bad := g.on(ctx, a.node, "sh", "-c", "ip -br link | grep s[vr]-demo"); bad != nil {
			return bad
		}
		g.gap()
		g.claim(equal(fmt.Sprintf("functions that are in the namespace of %s, with %d pods", a.node, n), want, free, err))
	}
	return nil
}

// softOf lists the ends of soft devices on a node.
func softOf(m machine) (string, error) {
	var left []string
	err := m.Do(func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			if strings.HasPrefix(i.Name, "sv-") || strings.HasPrefix(i.Name, "sr-") {
				left = append(left, i.Name)
			}
		}
		return err
	})
	return strings.Join(left, " "), err
}

// withdrawn removes pods, definitions and pool, and looks for what is left.
func (g *guide) withdrawn(ctx context.Context) error {
	g.note("The pool goes, and its devices with it.")
	if _, err := g.lab(ctx, "kubectl", "delete", "-f", "e2e/demo/strict.yaml", "-f", "e2e/demo/offloaded.yaml", "--ignore-not-found", "--wait=true", "--timeout=80s"); err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "delete", "-f", "e2e/demo/devices.yaml", "--ignore-not-found", "--wait=true", "--timeout=60s"); err != nil {
		return err
	}
	g.gap()
	for _, m := range g.nodes {
		left := ""
		err := eventually(ctx, 150*time.Second, func() (bool, error) {
			has, err := g.allocatable(ctx)
			if err != nil {
				return false, err
			}
			left, err = softOf(m)
			return left == "" && (has[m.Name] == "" || has[m.Name] == "0"), err
		})
		g.claim(claim{what: "devices of " + m.Name, want: "none", got: "none" + left, err: err})
	}
	return nil
}
