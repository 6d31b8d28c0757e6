package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// mostNetworks is how many networks a pod has at most beside the default one.
const mostNetworks = 8

// networkCounts are the numbers of networks beside the default one that part networks
// measures.
func networkCounts() []int { return []int{0, 1, 2, 4, mostNetworks} }

func definitionName(n int) string { return fmt.Sprintf("net%d", n) }

// selection is the annotation that names the first n definitions.
func selection(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = definitionName(i)
	}
	return strings.Join(names, ",")
}

// leases are AddressBlocks without an API server: what is leased is intent at once.
type leases struct {
	mu   sync.Mutex // guards took
	took map[string]*intent.Block
	put  func(intent.Object)
}

// Make implements networks.Blocks.
func (l *leases) Make(_ context.Context, b *intent.Block) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := b.Key().Name
	if l.took[key] != nil {
		return kube.ErrBlockTaken
	}
	l.took[key] = b
	l.put(b)
	return nil
}

// Change implements networks.Blocks.
func (l *leases) Change(_ context.Context, network string, slot int, change func(*intent.Block) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := (&intent.Block{Network: network, Slot: slot}).Key().Name
	if l.took[key] == nil {
		return kube.ErrBlockGone
	}
	b := *l.took[key]
	b.Entries = slices.Clone(b.Entries)
	if err := change(&b); err != nil {
		return err
	}
	l.took[key] = &b
	l.put(&b)
	return nil
}

// Remove implements networks.Blocks; what is leased is kept.
func (l *leases) Remove(context.Context, string, int, func(*intent.Block) bool) error { return nil }

// offer makes networks known, as the API server would, of these topologies in turn.
func (n *node) offer(kinds []intent.Topology, names ...int) {
	for _, i := range names {
		n.define(definitionName(i), i, kinds[i%len(kinds)], "")
	}
}

// define makes network i and its definition known, whose interfaces are devices of a
// resource; "": veth pairs.
func (n *node) define(name string, i int, kind intent.Topology, resource string) {
	put := func(o intent.Object) { n.networks.Put(o); n.sink.Put(o) }
	put(&intent.Namespace{Name: "ptb"})
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i / 128), byte(i % 128 * 2), 0}), 23)
	spec := &intent.Network{Name: name, ID: i + 1, Topology: kind, Definitions: []string{"ptb/" + name}, Subnets: []intent.NetworkSubnet{{Prefix: subnet}}}
	text := subnet.String()
	if kind == intent.Layer3 {
		spec.Subnets[0].HostPrefix = 24
		text += "/24"
	}
	put(&intent.Definition{Namespace: "ptb", Name: name, Resource: resource, Config: fmt.Sprintf(
		`{"cniVersion":"1.0.0","type":"portolan","name":%q,"netAttachDefName":"ptb/%s","topology":%q,"subnets":%q}`, name, name, kind, text)})
	put(spec)
}

func newNetworks(put func(intent.Object)) *networks.Networks {
	return networks.New(networks.Config{Node: nodeName, MTU: mtu, Blocks: &leases{took: map[string]*intent.Block{}, put: put}})
}

// lane is what part networks compares for one number of networks.
type lane struct {
	more       int
	contenders []contender // prepared, unprepared, the floor, Multus
}

// timeNetworks is part networks: ADD of a pod on several networks, beside Multus with
// as many bridges.
func timeNetworks(ctx context.Context, o options, n *node, w io.Writer) error {
	if o.multus == "" {
		return errors.New("-multus is not set: give it the directory that bin/lab multus prints")
	}
	if err := loopback(); err != nil {
		return err
	}
	api, err := startAPI(n.zone.dir)
	if err != nil {
		return err
	}
	if err := n.openFloor(ctx); err != nil {
		return err
	}
	all := make([]int, mostNetworks)
	for i := range all {
		all[i] = i
	}
	n.offer([]intent.Topology{intent.Layer3}, all...)
	var lanes []lane
	var contenders []contender
	for _, more := range networkCounts() {
		l := lane{more, []contender{
			&portolan{node: n, shim: o.shim, prepared: true, more: more}, &portolan{node: n, shim: o.shim, more: more},
			&floor{nb: n.floor.nb, ovs: n.floor.ovs, more: more},
			newMultus(o.multus, os.Getenv(envPlugins), n.zone, api, more),
		}}
		lanes, contenders = append(lanes, l), append(contenders, l.contenders...)
	}
	n.stages.reset()
	o.meter = newMeter(n.zone)
	o.samples = max(1, o.samples/networkShare)
	times, err := race(ctx, o, contenders, networksBase)
	if err != nil {
		return err
	}
	reportNetworks(w, o, lanes, times)
	var lines []string
	for _, k := range []int{0, 2} { // prepared, and the floor
		for _, l := range lanes {
			lines = append(lines, labelOf(l.contenders[k]))
		}
	}
	o.meter.print(w, "CPU time of an ADD, mean in ms", lines)
	n.stages.print(w)
	return nil
}

// labelOf tells contenders of several networks apart.
func labelOf(c contender) string {
	switch c := c.(type) {
	case *portolan:
		return fmt.Sprintf("%s +%d", c.name(), c.more)
	case *floor:
		return fmt.Sprintf("%s +%d", c.name(), c.more)
	}
	return c.name()
}

// networkShare is how many times fewer samples part networks takes: it has twenty
// contenders.
const networkShare = 5

// networksBase begins the numbers of part networks' sandboxes.
const networksBase = 30

func loopback() error {
	lo, err := netlink.LinkByName("lo")
	return errors.Join(err, netlink.LinkSetUp(lo))
}

// reportNetworks prints the times, and each as a multiple of the same contender's
// without further networks, and of Multus' with as many.
func reportNetworks(w io.Writer, o options, lanes []lane, times []timing) {
	fmt.Fprintf(w, "%d samples each, in turns; pods bound %s before\n", o.samples, o.lead)
	kinds := lanes[0].contenders
	for _, what := range []struct {
		name string
		of   func(timing) []time.Duration
	}{{"ADD", func(t timing) []time.Duration { return t.add }}, {"DEL", func(t timing) []time.Duration { return t.del }}} {
		fmt.Fprintf(w, "\n%s, ms; networks beside the default    p50     p90     p99   p50/none p99/none  p50/floor  p50/Multus p99/Multus\n", what.name)
		for k, c := range kinds {
			for i, l := range lanes {
				at := func(i, k, percent int) time.Duration {
					return quantile(sorted(what.of(times[i*len(kinds)+k])), percent)
				}
				ratio := func(j, m, percent int) float64 { return float64(at(i, k, percent)) / float64(at(j, m, percent)) }
				fmt.Fprintf(w, "  %-28s %d   %6s  %6s  %6s     %6.2f   %6.2f     %6.2f      %6.2f     %6.2f\n", c.name(), l.more,
					ms(at(i, k, 50)), ms(at(i, k, 90)), ms(at(i, k, 99)), ratio(0, k, 50), ratio(0, k, 99), ratio(i, len(kinds)-2, 50),
					ratio(i, len(kinds)-1, 50), ratio(i, len(kinds)-1, 99))
			}
		}
	}
}
