package multus

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// Source is a NetworkAttachmentDefinition as it stands.
type Source struct {
	Config   string // spec.config, or the text of the node's file where that is empty
	Resource string // annotation k8s.v1.cni.cncf.io/resourceName
}

// Request is what a plan is made of.
type Request struct {
	Namespace string // the pod's
	Networks  string // annotation NetworksAnnotation
	Default   string // annotation DefaultNetworkAnnotation

	DefaultNamespace string // of a definition that Default names without one; "": Namespace
	DefaultInterface string // the default network's; "": eth0

	// Lookup gives a definition by "namespace/name".
	Lookup func(key string) (Source, bool)
	// Devices are the pod's, by resource name, in kubelet's order. They are used up in
	// the order of their ids, the default network first.
	Devices map[string][]string
}

// Plan is a pod's attachments in the order in which they are made: the default
// network first, one after another (specification v1, section 6.2).
type Plan struct {
	Default     *Attachment // nil: the cluster's own default network
	Attachments []Attachment
}

// Attachment is one interface of a pod.
type Attachment struct {
	Selection Selection // what the pod asks for
	Key       string    // the definition's "namespace/name"
	Index     int       // 0 for a pod's first use of the definition, 1 for the second …
	Network   string    // the configuration's name
	Interface string

	Config   *Config         // of a network that is ours; nil: other plugins attach it all
	Plugins  []PluginCall    // in order; one of them is ours where Config is set
	List     json.RawMessage // for libcni: with args.cni and the device, without runtimeConfig
	Resource string          // that the definition asks a device of; "" for none
	Device   string          // that is attached; "" for none

	// Err is why this attachment cannot be made, and the others can: a *FieldError, a
	// *MissingError or a *NoConfigError.
	Err error
}

// PluginCall is a plugin with what the pod gives it.
type PluginCall struct {
	Plugin
	RuntimeConfig map[string]json.RawMessage // by capability; only those that the plugin has
}

// ID is "namespace/name", and "namespace/name/1" for the second use: what ports,
// addresses and annotations are filed under.
func (a *Attachment) ID() string {
	if a.Index == 0 {
		return a.Key
	}
	return a.Key + "/" + strconv.Itoa(a.Index)
}

// Capabilities are the values of all plugins together, as libcni takes them.
func (a *Attachment) Capabilities() map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, p := range a.Plugins {
		maps.Copy(out, p.RuntimeConfig)
	}
	return out
}

// MissingError says that a definition is not there: the pod waits for it.
type MissingError struct{ Key string }

// Error names the definition.
func (e *MissingError) Error() string {
	return fmt.Sprintf("waiting for NetworkAttachmentDefinition %s, which does not exist: create it, or correct the pod's annotation", e.Key)
}

// NoConfigError says that a definition has no configuration of its own, so that a
// file on the node has it: the caller reads the file whose name is Network, and gives
// its text by Lookup.
type NoConfigError struct{ Key, Network string }

// Error names the definition and the file's network.
func (e *NoConfigError) Error() string {
	return fmt.Sprintf("%s: it is empty, and the node has no CNI configuration whose name is %q; write one, or fill spec.config", DefinitionObject(e.Key), e.Network)
}

// Waits reports whether an attachment's error ends when somebody makes the definition.
func Waits(err error) bool {
	var missing *MissingError
	return errors.As(err, &missing)
}

// NewPlan reads a pod's annotations and the definitions they name. Its error is an
// annotation that cannot be used as a whole; what concerns one attachment is its Err.
func NewPlan(r Request) (*Plan, error) {
	if r.DefaultInterface == "" {
		r.DefaultInterface = "eth0"
	}
	if r.DefaultNamespace == "" {
		r.DefaultNamespace = r.Namespace
	}
	chosen, err := ParseDefaultNetwork(r.Default, r.DefaultNamespace)
	if err != nil {
		return nil, err
	}
	list, err := ParseNetworks(r.Networks, r.Namespace)
	if err != nil {
		return nil, err
	}
	p := &planner{Request: r, uses: map[string]int{}, taken: map[string]string{r.DefaultInterface: "the default network", "lo": "the loopback"}, devices: map[string][]string{}}
	for resource, ids := range r.Devices {
		p.devices[resource] = slices.Sorted(slices.Values(ids))
	}
	plan := &Plan{}
	if chosen != nil {
		chosen.Interface = r.DefaultInterface
		a := p.attachment(*chosen)
		plan.Default = &a
	}
	for i, s := range list {
		a := p.attachment(s)
		if holder, taken := p.taken[s.Interface]; taken {
			a.Err = &FieldError{fmt.Sprintf("annotation %s, entry %d", NetworksAnnotation, i), "interface", quoted(s.Interface),
				fmt.Sprintf("give it another name: %s has that one", holder)}
		} else {
			p.taken[s.Interface] = fmt.Sprintf("entry %d", i)
		}
		plan.Attachments = append(plan.Attachments, a)
	}
	return plan, nil
}

type planner struct {
	Request
	uses    map[string]int      // of a definition, so far
	taken   map[string]string   // interface names, and by what
	devices map[string][]string // that are left
}

func (p *planner) attachment(s Selection) Attachment {
	a := Attachment{Selection: s, Key: s.Key(), Interface: s.Interface, Index: p.uses[s.Key()]}
	p.uses[a.Key]++
	source, ok := p.Lookup(a.Key)
	if !ok {
		a.Err = &MissingError{a.Key}
		return a
	}
	a.Resource, a.Device = source.Resource, s.DeviceID
	if left := p.devices[a.Resource]; a.Resource != "" && len(left) > 0 {
		a.Device, p.devices[a.Resource] = left[0], left[1:]
	}
	d, err := ParseDefinition(a.Key, source.Config)
	if err != nil {
		a.Err = err
		return a
	}
	a.Network, a.Config = d.Network, d.Config
	if d.ByName {
		a.Err = &NoConfigError{a.Key, d.Network}
		return a
	}
	a.Err = a.fill(d)
	return a
}

// fill gives the plugins what the pod asks for.
func (a *Attachment) fill(d *Definition) error {
	if err := a.judge(d); err != nil {
		return err
	}
	values, err := a.values()
	if err != nil {
		return err
	}
	texts := make([]json.RawMessage, 0, len(d.Plugins))
	for _, p := range d.Plugins {
		call := PluginCall{Plugin: p, RuntimeConfig: map[string]json.RawMessage{}}
		for name, value := range values {
			if p.Has(name) {
				call.RuntimeConfig[name] = value
			}
		}
		if call.Config, err = a.merge(p.Config); err != nil {
			return err
		}
		texts = append(texts, call.Config)
		a.Plugins = append(a.Plugins, call)
	}
	a.List, err = EditPlugins(d.List, func([]json.RawMessage) ([]json.RawMessage, error) { return texts, nil })
	return err
}

// values are what the pod asks for by capability.
func (a *Attachment) values() (map[string]json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	s := a.Selection
	for _, v := range []struct {
		capability string
		asked      bool
		value      any
	}{
		{"ips", len(s.IPs) > 0, s.IPs},
		{"mac", s.MAC != "", s.MAC},
		{"infinibandGUID", s.InfinibandGUID != "", s.InfinibandGUID},
		{"portMappings", len(s.PortMappings) > 0, s.PortMappings},
		{"bandwidth", s.Bandwidth != nil, s.Bandwidth},
		{"deviceID", a.Device != "", a.Device},
	} {
		if !v.asked {
			continue
		}
		raw, err := json.Marshal(v.value)
		if err != nil {
			return nil, err
		}
		out[v.capability] = raw
	}
	return out, nil
}

// judge refuses what the pod asks for and the network cannot give: a value that no
// plugin takes may not be dropped (specification, section 4.1.2.1.3 and on). A device is no such value: Multus hands it to whom it concerns.
func (a *Attachment) judge(d *Definition) error {
	values, err := a.values()
	if err != nil {
		return err
	}
	for _, c := range slices.Sorted(maps.Keys(values)) {
		if c != "deviceID" && !slices.ContainsFunc(d.Plugins, func(p Plugin) bool { return p.Has(c) }) {
			return a.wrong(c, string(truncated(values[c])), fmt.Sprintf("remove it, or declare %q:true in capabilities of a plugin of %s that has it", c, a.Key))
		}
	}
	if a.Config == nil || a.Config.Default {
		if a.Selection.Claim != "" {
			return a.wrong("ipam-claim-reference", quoted(a.Selection.Claim), fmt.Sprintf("remove it: %s is no network whose addresses Portolan gives", a.Key))
		}
		return nil
	}
	if a.Selection.Claim != "" && !a.Config.PersistentIPs {
		return a.wrong("ipam-claim-reference", quoted(a.Selection.Claim), fmt.Sprintf("remove it, or set allowPersistentIPs in %s", a.Key))
	}
	return a.inside()
}

// inside refuses addresses that the network does not have.
func (a *Attachment) inside() error {
	for _, text := range a.Selection.IPs {
		addr, _, err := ParseAsked(text)
		if err != nil {
			return err
		}
		contains := func(p netip.Prefix) bool { return p.Contains(addr) }
		if len(a.Config.Subnets) > 0 && !slices.ContainsFunc(a.Config.Subnets, func(s Subnet) bool { return contains(s.Prefix) }) {
			return a.wrong("ips", quoted(text), fmt.Sprintf("ask for an address of %s, the subnets of network %s", joined(a.Config.Subnets), a.Network))
		}
		if i := slices.IndexFunc(a.Config.Exclude, contains); i >= 0 {
			return a.wrong("ips", quoted(text), fmt.Sprintf("ask for another: network %s excludes %s", a.Network, a.Config.Exclude[i]))
		}
	}
	return nil
}

func (a *Attachment) wrong(field, found, do string) error {
	return &FieldError{fmt.Sprintf("attachment of interface %s by %s", a.Interface, a.Key), field, found, do}
}

// merge puts cni-args and the device into a plugin's configuration. A pod's
// argument wins over the definition's; the device has the two keys that Multus sets.
func (a *Attachment) merge(config json.RawMessage) (json.RawMessage, error) {
	if len(a.Selection.CNIArgs) == 0 && (a.Device == "" || a.Resource == "") {
		return config, nil
	}
	o, err := readObject(DefinitionObject(a.Key), config)
	if err != nil {
		return nil, err
	}
	if a.Device != "" && a.Resource != "" {
		o.set("deviceID", a.Device)
		o.set("pciBusID", a.Device)
	}
	if len(a.Selection.CNIArgs) > 0 {
		args, cni := map[string]json.RawMessage{}, map[string]json.RawMessage{}
		if raw, ok := o.fields["args"]; ok && json.Unmarshal(raw, &args) != nil {
			return nil, o.wrong("args", string(truncated(raw)), "write an object")
		}
		if raw, ok := args["cni"]; ok && json.Unmarshal(raw, &cni) != nil {
			return nil, o.wrong("args", string(truncated(o.fields["args"])), "make cni an object")
		}
		if args == nil {
			args = map[string]json.RawMessage{}
		}
		if cni == nil {
			cni = map[string]json.RawMessage{}
		}
		maps.Copy(cni, a.Selection.CNIArgs)
		if args["cni"], err = json.Marshal(cni); err != nil {
			return nil, err
		}
		if o.fields["args"], err = json.Marshal(args); err != nil {
			return nil, err
		}
	}
	return json.Marshal(o.fields)
}
