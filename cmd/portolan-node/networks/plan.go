package networks

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Plan implements cni.Networks. What concerns one attachment Attach tells.
func (n *Networks) Plan(p cni.Pod) ([]cni.Wish, error) {
	if p.Selection == "" && p.Instead == "" {
		return nil, nil
	}
	n.mu.Lock()
	plan, err := n.planOf(p)
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	out := make([]cni.Wish, 0, len(plan.Attachments)+1)
	if plan.Default != nil {
		w, err := wishOf(p, plan.Default)
		if err != nil {
			return nil, err
		}
		w.Key = intent.DefaultNetwork
		out = append(out, w)
	}
	for i := range plan.Attachments {
		w, err := wishOf(p, &plan.Attachments[i])
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

func wishOf(p cni.Pod, a *multus.Attachment) (cni.Wish, error) {
	s := a.Selection
	w := cni.Wish{Pod: p, Key: a.ID(), IfName: a.Interface, DefaultRoute: s.DefaultRoute, Gateways: s.Gateways, Claim: s.Claim}
	if s.Bandwidth != nil {
		w.Bandwidth = cni.Bandwidth(*s.Bandwidth)
	}
	if s.MAC != "" {
		var err error
		if w.MAC, err = net.ParseMAC(s.MAC); err != nil {
			return w, fmt.Errorf("mac of %s: %w", a.Key, err)
		}
	}
	for _, text := range s.IPs {
		addr, bits, err := multus.ParseAsked(text)
		if err != nil {
			return w, fmt.Errorf("ips of %s: %w", a.Key, err)
		}
		if bits < 0 {
			bits = addr.BitLen()
		}
		w.IPs = append(w.IPs, netip.PrefixFrom(addr, bits))
	}
	return w, nil
}

// planKey is what a plan is made of beside definitions.
type planKey struct{ namespace, selection, instead string }

// manyPlans is how many are kept at most.
const manyPlans = 1024

// planOf makes a pod's plan, or finds it made; n.mu is held.
func (n *Networks) planOf(p cni.Pod) (*multus.Plan, error) {
	key := planKey{p.Namespace, p.Selection, p.Instead}
	if plan, ok := n.plans[key]; ok {
		return plan, nil
	}
	plan, err := multus.NewPlan(multus.Request{Namespace: p.Namespace, Networks: p.Selection, Default: p.Instead, Lookup: n.lookup})
	if err != nil {
		return nil, err
	}
	if n.plans == nil || len(n.plans) >= manyPlans {
		n.plans = map[planKey]*multus.Plan{}
	}
	n.plans[key] = plan
	return plan, nil
}

// lookup gives a definition, or the node's file where it has no configuration of its
// own; n.mu is held.
func (n *Networks) lookup(key string) (multus.Source, bool) {
	d := n.definitions[key]
	if d == nil {
		return multus.Source{}, false
	}
	s := multus.Source{Config: d.Config, Resource: d.Resource}
	if strings.TrimSpace(s.Config) == "" && n.cfg.File != nil {
		s.Config = n.cfg.File(d.Name)
	}
	return s, true
}

// attachment is the plan's of a wish. One that the pod's annotation does not have, any
// more or yet, is what the definition says alone; n.mu is held.
func (n *Networks) attachment(w cni.Wish) (*multus.Attachment, error) {
	if w.Pod.Selection != "" {
		plan, err := n.planOf(w.Pod)
		if err != nil {
			return nil, err
		}
		for i := range plan.Attachments {
			if a := &plan.Attachments[i]; a.ID() == w.Key {
				return a, nil
			}
		}
	}
	plan, err := multus.NewPlan(multus.Request{Namespace: w.Pod.Namespace, Networks: w.Definition(), Lookup: n.lookup})
	if err != nil {
		return nil, err
	}
	return &plan.Attachments[0], nil
}

// Offload is what the definition of an attachment says of offload: multus.OffloadRequire and
// so on; "" of none of Portolan's, or one that is not there.
func (n *Networks) Offload(key string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if key == intent.DefaultNetwork {
		return ""
	}
	a, err := n.attachment(cni.Wish{Key: key})
	if err != nil || a.Config == nil {
		return ""
	}
	return a.Config.Offload
}

// mayReplace judges what a pod wants instead of the cluster's default network: that
// network itself, with an address or a MAC of the pod's choice; n.mu is held.
func (n *Networks) mayReplace(w cni.Wish) error {
	plan, err := n.planOf(w.Pod)
	if err != nil {
		return err
	}
	a := plan.Default
	if a == nil {
		return nil
	}
	if err := n.mayName(w, a.Key, a.Selection.Namespace); err != nil {
		return err
	}
	if multus.Waits(a.Err) {
		return &cni.PendingError{Reason: a.Err.Error()}
	}
	if a.Err != nil {
		return a.Err
	}
	if a.Config == nil || !a.Config.Default || len(a.Plugins) > 1 {
		return fmt.Errorf("annotation %s names %s, which is not the cluster's default network: without Multus a pod's first interface is Portolan's, by which the kubelet and Services reach it; name %s in %s, with default-route if that is to be its way out",
			multus.DefaultNetworkAnnotation, a.Key, a.Key, multus.NetworksAnnotation)
	}
	return nil
}

// leaseOf is how a plugin is asked for the addresses of an interface of ours: as plugins
// that make interfaces ask it, by the whole configuration.
func leaseOf(a *multus.Attachment) (cni.Chain, error) {
	none := cni.Chain{}
	if a.Config == nil || a.Config.IPAMType == "" {
		return none, nil
	}
	i := slices.IndexFunc(a.Plugins, func(p multus.PluginCall) bool { return p.Ours })
	list, err := cni.AddressList(a.Plugins[i].Config, a.Config.IPAMType, a.Network)
	if err != nil {
		return none, err
	}
	chain := cni.Chain{List: list, Values: map[string]json.RawMessage{}}
	if ips, ok := a.Plugins[i].RuntimeConfig["ips"]; ok {
		chain.Values["ips"] = ips
	}
	return chain, nil
}

// chainOf is what plugins of others do for an attachment.
func chainOf(a *multus.Attachment) (cni.Chain, error) {
	none := cni.Chain{}
	chain := cni.Chain{List: a.List, Values: a.Capabilities()}
	if a.Config == nil {
		return chain, nil
	}
	if !a.Plugins[0].Ours {
		return none, fmt.Errorf("definition %s: plugin %q is before Portolan's, which makes the interface: put Portolan's first", a.Key, a.Plugins[0].Type)
	}
	if len(a.Plugins) == 1 {
		return none, nil
	}
	var err error
	chain.List, err = multus.EditPlugins(a.List, func(plugins []json.RawMessage) ([]json.RawMessage, error) { return plugins[1:], nil })
	return chain, err
}
