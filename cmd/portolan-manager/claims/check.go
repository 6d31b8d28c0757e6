package claims

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// fault is why a claim is refused.
type fault struct {
	reason  string // of the condition and the Event
	message string
}

func invalid(format string, args ...any) *fault {
	return &fault{v1alpha1.ReasonInvalid, fmt.Sprintf(format, args...)}
}

// check says what is wrong with a claim in this cluster: not with whom it agrees.
// What is wrong with its text alone, package multus has said.
func (w *World) check(d *Definition) *fault {
	if d.Err != nil {
		return invalid("%s", d.Err)
	}
	n, problems := read(d.Spec)
	if len(problems) > 0 {
		return invalid("%s: %s", strings.TrimPrefix(problems[0].Field, "spec."), problems[0].Message)
	}
	if err := w.subnets(n); err != nil {
		return invalid("%s", err)
	}
	path := cmp.Or(w.MTU, w.Plan.MTU)
	if n.Topology != intent.Localnet && n.MTU > path {
		return invalid("mtu: %d is more than the %d bytes that fit through the tunnels between nodes", n.MTU, path)
	}
	if n.Topology == intent.Localnet {
		return w.wire(d, n)
	}
	return nil
}

// subnets refuses those that another meaning is taken by.
func (w *World) subnets(n *intent.Network) error {
	for _, s := range n.Subnets {
		for _, taken := range w.taken() {
			if s.Prefix.Overlaps(taken.prefix) {
				return fmt.Errorf("subnets: %s overlaps %s, the cluster's %s: choose another", s.Prefix, taken.prefix, taken.of)
			}
		}
	}
	return nil
}

// owned is a prefix with a meaning.
type owned struct {
	of     string
	prefix netip.Prefix
}

// taken are the prefixes that no network may have a part of.
func (w *World) taken() []owned {
	var out []owned
	for _, l := range []struct {
		of   string
		list []netip.Prefix
	}{
		{"default network", w.Plan.PodSubnets}, {"service network", w.Plan.ServiceNets}, {"join network", w.Plan.JoinSubnets},
		{"transit network", w.Plan.Transits()}, {"masquerade network", w.Plan.Masquerade},
	} {
		for _, p := range l.list {
			out = append(out, owned{l.of, p})
		}
	}
	return out
}

// wire checks a localnet against the PhysicalNetwork that it names.
func (w *World) wire(d *Definition, n *intent.Network) *fault {
	p := w.Physical[n.PhysicalNetwork]
	if p == nil {
		return &fault{v1alpha1.ReasonPhysicalNetwork, fmt.Sprintf(
			"physicalNetworkName: there is no PhysicalNetwork %s: make one, or name one that is there", n.PhysicalNetwork)}
	}
	if ok, err := w.chosen(p.Spec.NamespaceSelector, d.Namespace); err != nil || !ok {
		return &fault{ReasonForbidden, fmt.Sprintf(
			"physicalNetworkName: namespace %s is not among those that may use PhysicalNetwork %s", d.Namespace, p.Name)}
	}
	ranges, err := VLANs(p.Spec.VLANs)
	if err != nil {
		return invalid("physicalNetworkName: PhysicalNetwork %s: %s", p.Name, err)
	}
	if len(ranges) > 0 && !slices.ContainsFunc(ranges, func(r [2]int) bool { return r[0] <= n.VLAN && n.VLAN <= r[1] }) {
		what := "VLAN " + strconv.Itoa(n.VLAN)
		if n.VLAN == 0 {
			what = "untagged"
		}
		return &fault{ReasonForbidden, fmt.Sprintf("vlanID: %s is not among what PhysicalNetwork %s allows: %s",
			what, p.Name, strings.Join(p.Spec.VLANs, ", "))}
	}
	return nil
}

// VLANs parses ranges as "100" or "100-199".
func VLANs(list []string) ([][2]int, error) {
	var out [][2]int
	for _, text := range list {
		a, b, isRange := strings.Cut(text, "-")
		if !isRange {
			b = a
		}
		first, err1 := strconv.Atoi(a)
		last, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil || first < 0 || last < first || last > 4094 {
			return nil, fmt.Errorf("vlans: %q is neither a VLAN from 0 to 4094 nor FIRST-LAST", text)
		}
		out = append(out, [2]int{first, last})
	}
	return out, nil
}

// chosen tells whether a selector selects a namespace; nil selects all.
func (w *World) chosen(s *metav1.LabelSelector, namespace string) (bool, error) {
	if s == nil {
		return true, nil
	}
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return false, err
	}
	return sel.Matches(labels.Set(w.Namespaces[namespace])), nil
}
