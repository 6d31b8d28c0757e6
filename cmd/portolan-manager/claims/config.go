package claims

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Definition is one NetworkAttachmentDefinition.
type Definition struct {
	Namespace, Name string
	UID             string
	Created         time.Time

	Network string               // that it claims; "" when that is not known
	Spec    v1alpha1.NetworkSpec // what it says of the network, as far as it could be read
	Err     error                // why the text cannot be used; nil: it can
}

// Key is "namespace/name".
func (d *Definition) Key() string { return d.Namespace + "/" + d.Name }

// Parse reads a definition's text into d; false for one of another plugin, or of the
// default network. Of a text that cannot be used it keeps what a Network needs to say so.
func (d *Definition) Parse(text string) bool {
	parsed, err := multus.ParseDefinition(d.Key(), text)
	if err != nil {
		d.Err = told(err)
		return d.guess(text)
	}
	c := parsed.Config
	if c == nil {
		return false
	}
	d.Network = c.Name
	d.Spec = v1alpha1.NetworkSpec{
		Name: c.Name, Topology: c.Topology, Subnets: texts(c.Subnets), ExcludeSubnets: texts(c.Exclude), ReservedSubnets: texts(c.Reserved),
		MTU: c.MTU, VLAN: c.VLAN, PhysicalNetwork: c.PhysicalNetwork, PersistentIPs: c.PersistentIPs, Offload: c.Offload,
	}
	return !c.Default
}

// sketch is what of a configuration tells whose it is.
type sketch struct {
	Type     string   `json:"type"`
	Name     string   `json:"name"`
	Topology string   `json:"topology"`
	Plugins  []sketch `json:"plugins"`
}

// guess finds network and topology in a text that is wrong; false: it is not ours.
func (d *Definition) guess(text string) bool {
	var s sketch
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return slices.ContainsFunc(multus.OurTypes(), func(t string) bool { return strings.Contains(text, `"`+t+`"`) })
	}
	name := cmp.Or(s.Name, d.Name) // the specification's rule
	i := slices.IndexFunc(append(s.Plugins, s), func(p sketch) bool { return multus.Ours(p.Type) })
	if i < 0 {
		return false
	}
	d.Network = name
	switch t := intent.Topology(cmp.Or(append(s.Plugins, s)[i].Topology, string(intent.Layer3))); t {
	case intent.Layer3, intent.Layer2, intent.Localnet:
		d.Spec.Topology = string(t) // a Network can say what is wrong
	}
	return true
}

// told is an error without the definition's name, which who tells it gives.
func told(err error) error {
	var f *multus.FieldError
	if errors.As(err, &f) {
		g := *f
		g.Object = "spec.config"
		return &g
	}
	return err
}

// texts writes prefixes as a Network's spec has them.
func texts[T netip.Prefix | multus.Subnet](list []T) []string {
	var out []string
	for _, p := range list {
		out = append(out, fmt.Sprint(p))
	}
	return out
}
