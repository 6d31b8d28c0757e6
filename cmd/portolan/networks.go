package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// networkReport is a network as its objects and all agents know it.
type networkReport struct {
	inspect.Network
	// Ready is the object's condition; empty behind a socket, where no object is read.
	Ready     string                  `json:"ready,omitempty"`
	Message   string                  `json:"message,omitempty"`
	Pods      int                     `json:"pods"`
	Used      int64                   `json:"used"`
	Free      int64                   `json:"free"`
	Counted   bool                    `json:"counted"` // Used and Free are the manager's
	Claims    []v1alpha1.NetworkClaim `json:"claims,omitempty"`
	Rendered  []string                `json:"rendered"` // by these zones
	Excluded  []string                `json:"excluded,omitempty"`
	Reserved  []string                `json:"reserved,omitempty"`
	Wire      *wireReport             `json:"wire,omitempty"` // of a localnet
	Forbidden string                  `json:"namespaceSelector,omitempty"`
}

// wireReport is the PhysicalNetwork of a localnet.
type wireReport struct {
	Name    string   `json:"name"`
	Exists  bool     `json:"exists"`
	Ready   string   `json:"ready,omitempty"` // READY/SELECTED nodes
	Trouble []string `json:"trouble,omitempty"`
}

func networksCommand() *cobra.Command {
	var o reach.Options
	var out output
	cmd := &cobra.Command{
		Use:     "networks [NAME]",
		Aliases: []string{"network"},
		Short:   "Show the networks beside the default one, or all of one",
		Long: `Networks lists what NetworkAttachmentDefinitions have asked for: topology, subnets, addresses used
and free, pods, the nodes whose zone has the network's rows (rendered: none while no pod uses it), and what is
wrong. With NAME, which is a network's or a definition's (NAMESPACE/NAME), it prints all of one: its claims, its
physical network, which node has which part of it, and every pod on it.

Behind a node's socket it is what that node knows.`,
		Example: "  portolan networks\n  portolan networks demo/blue",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := reach.Open(o)
			if err != nil {
				return err
			}
			list, silent := networksOf(cmd.Context(), r)
			if len(list) == 0 && silent != nil {
				return silent
			}
			if len(args) == 1 {
				n, err := chosen(list, args[0])
				if err != nil {
					return errors.Join(err, silent)
				}
				list = []networkReport{n}
			}
			err = out.print(cmd.OutOrStdout(), list, func(w io.Writer) {
				if len(args) == 1 {
					list[0].write(w)
				} else {
					writeNetworks(w, list)
				}
			})
			return errors.Join(err, silent)
		},
	}
	o.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// chosen finds a network by its name or by that of a definition.
func chosen(list []networkReport, name string) (networkReport, error) {
	var names []string
	for _, n := range list {
		named := func(c v1alpha1.NetworkClaim) bool { return c.Definition == name }
		if n.Name == name || slices.Contains(n.Definitions, name) || slices.ContainsFunc(n.Claims, named) {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return networkReport{}, fmt.Errorf("there is no network %s, but %s", name, dash(strings.Join(names, ", ")))
}

// networksOf joins the objects with what every agent, and in a global zone the
// controller, knows. Its error says who did not answer; what is known comes with it.
func networksOf(ctx context.Context, r *reach.Reach) ([]networkReport, error) {
	all := map[string]*networkReport{}
	var err error
	if !r.Local() {
		if err := readNetworks(ctx, r, all); err != nil {
			return nil, err
		}
	}
	agents, err := r.Agents(ctx)
	if err != nil {
		return nil, err
	}
	writer, err := writing(ctx, r)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range slices.Concat(agents, writer) {
		list, err := []inspect.Network(nil), a.Err
		if err == nil {
			list, err = inspect.NewClient(a.Transport).Networks(ctx)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(a.Node, a.Process), err))
			continue
		}
		for _, n := range list {
			if all[n.Name] == nil {
				all[n.Name] = &networkReport{Network: inspect.Network{
					Name: n.Name, ID: n.ID, Topology: n.Topology, Subnets: n.Subnets, MTU: n.MTU, VLAN: n.VLAN, PhysicalNetwork: n.PhysicalNetwork, Definitions: n.Definitions,
				}}
			}
			all[n.Name].join(n, a)
		}
	}
	list := []networkReport{}
	for _, n := range all {
		n.finish()
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b networkReport) int { return cmp.Compare(a.Name, b.Name) })
	return list, errors.Join(errs...)
}

// readNetworks reads what the API server has.
func readNetworks(ctx context.Context, r *reach.Reach, all map[string]*networkReport) error {
	const ours = "/apis/" + v1alpha1.Group + "/" + v1alpha1.Version
	var networks struct {
		Items []v1alpha1.Network `json:"items"`
	}
	if err := object(ctx, r, ours+"/networks", &networks); err != nil {
		return fmt.Errorf("list networks: %w", err)
	}
	var physical struct {
		Items []v1alpha1.PhysicalNetwork `json:"items"`
	}
	if err := object(ctx, r, ours+"/physicalnetworks", &physical); err != nil {
		return fmt.Errorf("list physical networks: %w", err)
	}
	for i := range networks.Items {
		n := reported(&networks.Items[i])
		if n.Topology == "localnet" {
			n.Wire = wireOf(physical.Items, cmp.Or(n.PhysicalNetwork, n.Name))
		}
		all[n.Name] = n
	}
	return nil
}

// reported is what an object says.
func reported(o *v1alpha1.Network) *networkReport {
	s := o.Spec
	n := &networkReport{
		Network: inspect.Network{
			Name: cmp.Or(s.Name, o.Name), ID: s.ID, Topology: s.Topology, Subnets: s.Subnets, MTU: s.MTU, VLAN: s.VLAN, PhysicalNetwork: s.PhysicalNetwork, Definitions: s.Definitions,
		},
		Pods: o.Status.Pods, Used: o.Status.AddressesUsed, Free: o.Status.AddressesFree, Counted: true,
		Claims: o.Status.Claims, Excluded: s.ExcludeSubnets, Reserved: s.ReservedSubnets, Ready: "Unknown",
	}
	if s.NamespaceSelector != nil {
		n.Forbidden = metav1.FormatLabelSelector(s.NamespaceSelector)
	}
	for _, c := range o.Status.Conditions {
		if c.Type == v1alpha1.ConditionReady {
			n.Ready = string(c.Status)
			if c.Status != metav1.ConditionTrue || c.Reason != v1alpha1.ReasonAccepted {
				n.Message = strings.TrimSuffix(c.Reason+": "+c.Message, ": ")
			}
		}
	}
	return n
}

func wireOf(list []v1alpha1.PhysicalNetwork, name string) *wireReport {
	w := &wireReport{Name: name}
	for i := range list {
		p := &list[i]
		if p.Name != name {
			continue
		}
		w.Exists, w.Ready = true, p.Status.Ready
		for _, n := range p.Status.Nodes {
			w.Trouble = append(w.Trouble, n.Node+": "+n.Message)
		}
		for _, c := range p.Status.Conditions {
			if c.Type == v1alpha1.ConditionReady && c.Status != metav1.ConditionTrue && len(w.Trouble) == 0 {
				w.Trouble = append(w.Trouble, c.Message)
			}
		}
	}
	return w
}

// join adds what a process knows.
func (n *networkReport) join(seen inspect.Network, a reach.Agent) {
	if seen.Rows > 0 {
		who := cmp.Or(a.Node, strings.Join(seen.Nodes, ","), a.Process, "here")
		for _, z := range strings.Split(who, ",") {
			if !slices.Contains(n.Rendered, z) {
				n.Rendered = append(n.Rendered, z)
			}
		}
		n.Rows += seen.Rows
		n.Pending = n.Pending || seen.Pending
	}
	for _, p := range seen.Ports {
		if !slices.ContainsFunc(n.Ports, func(q inspect.NetworkPort) bool { return q.Pod == p.Pod && q.Attachment == p.Attachment }) {
			n.Ports = append(n.Ports, p)
		}
	}
	for _, b := range seen.Blocks {
		i := slices.IndexFunc(n.Blocks, func(c inspect.NetworkBlock) bool { return c.Slot == b.Slot })
		if i < 0 {
			n.Blocks = append(n.Blocks, b)
		}
	}
	for _, p := range seen.Problems {
		if p.Age = 0; !slices.Contains(n.Problems, p) {
			n.Problems = append(n.Problems, p)
		}
	}
}

// finish puts in order, and counts where no object has.
func (n *networkReport) finish() {
	slices.Sort(n.Rendered)
	slices.SortFunc(n.Ports, func(a, b inspect.NetworkPort) int {
		return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Attachment, b.Attachment))
	})
	slices.SortFunc(n.Blocks, func(a, b inspect.NetworkBlock) int { return cmp.Compare(a.Slot, b.Slot) })
	if n.Rendered == nil {
		n.Rendered = []string{}
	}
	if !n.Counted {
		pods := map[string]bool{}
		for _, p := range n.Ports {
			pods[p.Pod] = true
		}
		n.Pods = len(pods)
	}
}

func writeNetworks(w io.Writer, list []networkReport) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no networks beside the default one")
		return
	}
	t := table{head: []string{"NAME", "TOPOLOGY", "SUBNETS", "USED", "FREE", "PODS", "RENDERED ON", "ROWS", "READY"}}
	for _, n := range list {
		t.add(n.Name, topologyText(n), dash(strings.Join(n.Subnets, ",")), n.counted(n.Used), n.counted(n.Free), fmt.Sprint(n.Pods), several(n.Rendered), rowsText(n), dash(n.Ready))
	}
	t.write(w)
	for _, n := range list {
		for _, line := range n.complaints() {
			fmt.Fprintf(w, "%s: %s\n", n.Name, line)
		}
	}
}

// counted is a count of addresses; a network without subnets gives none.
func (n networkReport) counted(count int64) string {
	if !n.Counted || len(n.Subnets) == 0 {
		return "-"
	}
	return fmt.Sprint(count)
}

// topologyText is the topology, with a localnet's VLAN.
func topologyText(n networkReport) string {
	if n.VLAN != 0 {
		return fmt.Sprintf("%s vlan %d", n.Topology, n.VLAN)
	}
	return n.Topology
}

func rowsText(n networkReport) string {
	if n.Pending {
		return fmt.Sprintf("%d pending", n.Rows)
	}
	return fmt.Sprint(n.Rows)
}

// several is a list with its end left out.
func several(list []string) string {
	if len(list) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:3], ","), len(list)-3)
	}
	return dash(strings.Join(list, ","))
}

// complaints are what is wrong with a network, a line each.
func (n networkReport) complaints() []string {
	var out []string
	note := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if !slices.ContainsFunc(out, func(known string) bool { return strings.Contains(known, text) }) {
			out = append(out, text)
		}
	}
	if n.Message != "" {
		note("%s", n.Message)
	}
	for _, c := range n.Claims {
		if !c.Accepted {
			note("definition %s is not accepted: %s", c.Definition, dash(c.Message))
		}
	}
	if n.Wire != nil && !n.Wire.Exists {
		note("PhysicalNetwork %s does not exist: create it", n.Wire.Name)
	}
	if n.Wire != nil {
		for _, text := range n.Wire.Trouble {
			note("physical network %s: %s", n.Wire.Name, text)
		}
	}
	for _, p := range n.Problems {
		note("%s: %s", strings.TrimSpace(p.Severity+" "+p.Field), p.Message)
	}
	return out
}

// write is all of a network, for people.
func (n networkReport) write(w io.Writer) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-11s %s\n", name, text)
		}
	}
	line("network", fmt.Sprintf("%s, id %d, %s", n.Name, n.ID, n.Topology))
	line("ready", n.Ready)
	line("subnets", strings.Join(n.Subnets, ", "))
	line("excluded", strings.Join(n.Excluded, ", "))
	line("reserved", strings.Join(n.Reserved, ", "))
	if n.Counted && len(n.Subnets) > 0 {
		line("addresses", fmt.Sprintf("%d used, %d free", n.Used, n.Free))
	}
	if n.MTU != 0 {
		line("mtu", fmt.Sprint(n.MTU))
	}
	if n.Wire != nil {
		line("wire", fmt.Sprintf("physical network %s, %s, ready on %s nodes", n.Wire.Name, vlanText(n.VLAN), dash(n.Wire.Ready)))
	} else if n.PhysicalNetwork != "" {
		line("wire", fmt.Sprintf("physical network %s, %s", n.PhysicalNetwork, vlanText(n.VLAN)))
	}
	line("namespaces", n.Forbidden)
	line("claimed by", strings.Join(n.Definitions, ", "))
	if len(n.Rendered) == 0 {
		line("rendered", "nowhere: no pod uses it, so it has no rows")
	} else {
		line("rendered", fmt.Sprintf("on %s, %s", strings.Join(n.Rendered, ", "), count(n.Rows, "row")+map[bool]string{true: ", not all written"}[n.Pending]))
	}
	for _, text := range n.complaints() {
		line("problem", text)
	}
	blocks := table{head: []string{"SLOT", "NODE", "SUBNETS", "ENTRIES"}}
	for _, b := range n.Blocks {
		blocks.add(fmt.Sprint(b.Slot), dash(b.Node), dash(strings.Join(b.Subnets, " ")), fmt.Sprint(b.Entries))
	}
	pods := table{head: []string{"POD", "NODE", "BY", "ADDRESSES", "MAC", "TUNNEL KEY"}}
	for _, p := range n.Ports {
		pods.add(p.Pod, p.Node, p.Attachment, dash(strings.Join(p.Addresses, " ")), dash(p.MAC), number(p.TunnelKey))
	}
	for _, t := range []table{blocks, pods} {
		if len(t.rows) > 0 {
			fmt.Fprintln(w)
		}
		t.write(w)
	}
}

func vlanText(vlan int) string {
	if vlan == 0 {
		return "untagged"
	}
	return fmt.Sprintf("VLAN %d", vlan)
}
