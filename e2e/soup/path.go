package soup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// place is a pod that must be reachable, and where it is.
type place struct {
	pod     *corev1.Pod
	machine *machine
	addr    netip.Addr // that its own interface has
}

func (p place) port() string { return rows.PodPort(namespace, p.pod.Name) }

func has(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr() == a })
}

// reachable walks from every pod to every other.
func (w *world) reachable() error {
	var all []place
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.api.pods)) {
		p := w.api.pods[name]
		m := w.byNode(p.Spec.NodeName)
		if m == nil || completed(p) || w.api.nodes[m.node] == nil {
			continue
		}
		at := place{pod: p, machine: m}
		if err := at.standing(); err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, at)
	}
	zones := map[*database][]rows.Row{}
	for _, z := range w.zones() {
		for _, db := range z.dbs {
			zones[db] = read(db)
		}
	}
	for _, a := range all {
		for _, b := range all {
			if err := w.walk(zones, a, b); err != nil {
				errs = append(errs, fmt.Errorf("from pod %s on %s to pod %s on %s, %s: %w", a.pod.Name, a.machine.node, b.pod.Name, b.machine.node, b.addr, err))
			}
		}
	}
	return errors.Join(errs...)
}

// standing compares what interface, OVS and annotation say of a pod's address.
func (p *place) standing() error {
	uid := string(p.pod.UID)
	in := p.machine.links.In("/run/netns/" + p.machine.sandbox[uid].id)
	if len(in) != 1 {
		return fmt.Errorf("pod %s has the addresses %v on its interface", p.pod.Name, in)
	}
	p.addr = in[0].Addr()
	ports, _ := p.machine.ports.List(context.Background())
	found := 0
	for _, port := range ports {
		if port.Pod.UID == uid {
			found++
			if !has(port.Addresses, p.addr) || port.Sandbox != p.machine.sandbox[uid].id || port.Pod.LogicalPort() != p.port() {
				return fmt.Errorf("pod %s has %s, its OVS port says %+v", p.pod.Name, p.addr, port)
			}
		}
	}
	if found != 1 {
		return fmt.Errorf("pod %s has %d OVS ports", p.pod.Name, found)
	}
	q, _ := kube.ParsePod(p.pod)
	at, ok := q.Attachment(intent.DefaultNetwork)
	if !ok || !has(at.Addresses, p.addr) {
		return fmt.Errorf("pod %s has %s, its annotation says %v", p.pod.Name, p.addr, at.Addresses)
	}
	return nil
}

// find returns the first row of a table for which ok holds.
func find(all []rows.Row, table rows.Table, ok func(rows.Row) bool) (rows.Row, bool) {
	for _, r := range all {
		if r.Table == table && ok(r) {
			return r, true
		}
	}
	return rows.Row{}, false
}

func named(name string) func(rows.Row) bool {
	return func(r rows.Row) bool { return text(r, "name") == name }
}

// walk takes a packet from a to b by the rows that carry it.
func (w *world) walk(zones map[*database][]rows.Row, a, b place) error {
	nbOf := func(m *machine) []rows.Row {
		if w.central != nil {
			return zones[w.central.dbs[rows.NB]]
		}
		return zones[m.dbs[rows.NB]]
	}
	here, there := nbOf(a.machine), nbOf(b.machine)
	if err := port(here, a); err != nil {
		return err
	}
	if a.machine != b.machine {
		if err := gateway(here, a); err != nil {
			return err
		}
		if w.central == nil {
			if err := tunnel(here, zones[a.machine.dbs[rows.SB]], there, b); err != nil {
				return err
			}
		}
		if err := gateway(there, b); err != nil {
			return err
		}
	}
	return port(there, b)
}

// port finds a pod's port on its node's switch.
func port(nb []rows.Row, p place) error {
	lsp, ok := find(nb, "NB:Logical_Switch_Port", named(p.port()))
	switch want := rows.MAC(p.addr) + " " + p.addr.String(); {
	case !ok:
		return fmt.Errorf("no port %s", p.port())
	case lsp.Parent.Row.ID != p.machine.node:
		return fmt.Errorf("port %s is on switch %s", p.port(), lsp.Parent.Row.ID)
	case text(lsp, "addresses") != want || text(lsp, "port_security") != want:
		return fmt.Errorf("port %s has addresses %q and port security %q, want %q", p.port(), text(lsp, "addresses"), text(lsp, "port_security"), want)
	case entry(lsp, "options", "requested-chassis") != p.machine.node || entry(lsp, "options", "iface-id-ver") != string(p.pod.UID):
		return fmt.Errorf("port %s has options %v", p.port(), lsp.Columns)
	}
	return nil
}

// gateway finds the router's port on a pod's switch, whose subnet has the pod.
func gateway(nb []rows.Row, p place) error {
	name := "rtos-" + p.machine.node
	lrp, ok := find(nb, "NB:Logical_Router_Port", named(name))
	if !ok || lrp.Parent.Row.ID != rows.ClusterRouter {
		return fmt.Errorf("no router port %s", name)
	}
	if net, err := netip.ParsePrefix(text(lrp, "networks")); err != nil || !net.Masked().Contains(p.addr) {
		return fmt.Errorf("router port %s has the network %s", name, text(lrp, "networks"))
	}
	if _, ok := find(nb, "NB:Logical_Switch_Port", func(r rows.Row) bool {
		return entry(r, "options", "router-port") == name && r.Parent.Row.ID == p.machine.node
	}); !ok {
		return fmt.Errorf("router port %s is not plugged into its switch", name)
	}
	return nil
}

// tunnel follows the route to another zone: its next hop's remote port, that
// port's chassis and key, the chassis' tunnel, and the same key over there.
func tunnel(nb, sb, there []rows.Row, b place) error {
	hop, best := "", -1
	for _, r := range nb {
		if r.Table != "NB:Logical_Router_Static_Route" || r.Parent.Row.ID != rows.ClusterRouter || text(r, "policy") == "src-ip" {
			continue
		}
		if p, err := netip.ParsePrefix(text(r, "ip_prefix")); err == nil && p.Contains(b.addr) && p.Bits() > best {
			hop, best = text(r, "nexthop"), p.Bits()
		}
	}
	if hop == "" {
		return errors.New("no route")
	}
	remote, ok := find(nb, "NB:Logical_Switch_Port", func(r rows.Row) bool {
		return text(r, "type") == "remote" && strings.Contains(text(r, "addresses")+"/", " "+hop+"/")
	})
	if !ok || remote.Parent.Row.ID != rows.TransitSwitch {
		return fmt.Errorf("the route's next hop %s is no remote port's", hop)
	}
	chassis, key := entry(remote, "options", "requested-chassis"), entry(remote, "options", "requested-tnl-key")
	if chassis != b.machine.name {
		return fmt.Errorf("the next hop's port is bound to chassis %s, the pod is on %s", chassis, b.machine.name)
	}
	encap, ok := find(sb, "SB:Encap", func(r rows.Row) bool { return text(r, "chassis_name") == chassis })
	if !ok || text(encap, "ip") != b.machine.addr.String() || encap.Parent.Row.ID != chassis {
		return fmt.Errorf("chassis %s's tunnel goes to %q, the machine has %s", chassis, text(encap, "ip"), b.machine.addr)
	}
	far, ok := find(there, "NB:Logical_Switch_Port", func(r rows.Row) bool {
		return r.Parent.Row.ID == rows.TransitSwitch && entry(r, "options", "requested-tnl-key") == key
	})
	if !ok || text(far, "type") != "router" {
		return fmt.Errorf("no router behind key %s of the transit switch over there", key)
	}
	lrp, ok := find(there, "NB:Logical_Router_Port", named(entry(far, "options", "router-port")))
	if !ok || !strings.HasPrefix(text(lrp, "networks"), hop+"/") {
		return fmt.Errorf("the router over there has %q, the route's next hop is %s", text(lrp, "networks"), hop)
	}
	return nil
}
