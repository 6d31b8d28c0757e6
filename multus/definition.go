package multus

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Definition is a NetworkAttachmentDefinition's spec.config as it is carried out:
// always a list of plugins, always with the network's name (specification v1,
// section 3.4; the CNI specification, section 1).
type Definition struct {
	Key     string          // "namespace/name"
	Network string          // the configuration's name; the definition's where it has none
	List    json.RawMessage // the configuration list, for libcni; nil: see ByName
	Plugins []Plugin
	Config  *Config // of the one plugin that is ours; nil: none is
	// ByName: spec.config is empty, so the configuration is the file of the node's CNI
	// directory whose name is Network; the caller reads it, and gives its text here.
	ByName bool
}

// Plugin is one plugin of a definition.
type Plugin struct {
	Type         string
	Ours         bool
	Capabilities []string        // that it declares, sorted; those of ours also what it has anyway
	Config       json.RawMessage // as libcni hands it over, but for runtimeConfig and prevResult
}

// Has reports whether the plugin is given a capability's value.
func (p Plugin) Has(capability string) bool { return slices.Contains(p.Capabilities, capability) }

// ourCapabilities need no declaration: definitions of OVN-Kubernetes have none, for
// its plugin reads the pod's annotation itself.
func ourCapabilities() []string {
	return []string{"CNIDeviceInfoFile", "bandwidth", "deviceID", "ips", "mac"}
}

// ParseDefinition reads spec.config of the definition key, "namespace/name". An
// error is a *FieldError and names the definition.
func ParseDefinition(key, config string) (*Definition, error) {
	_, name, _ := strings.Cut(key, "/")
	if strings.TrimSpace(config) == "" {
		return &Definition{Key: key, Network: name, ByName: true}, nil
	}
	o, err := readObject(DefinitionObject(key), []byte(config))
	if err != nil {
		return nil, err
	}
	d := &Definition{Key: key, Network: name}
	if err := o.into("name", "the network's name", &d.Network); err != nil {
		return nil, err
	}
	if len(d.Network) > maxNetworkName || !networkName.MatchString(d.Network) {
		return nil, o.wrong("name", quoted(d.Network), "write the network's name: letters, digits, '_', '.' and '-', the first a letter or digit")
	}
	version := ""
	if err := o.into("cniVersion", "a CNI version, such as \"1.0.0\"", &version); err != nil {
		return nil, err
	}
	list, err := o.list(d.Network)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if err := d.add(p, o.fields["cniVersion"]); err != nil {
			return nil, err
		}
	}
	d.List, err = o.normal(d.Plugins)
	return d, err
}

// list makes plugins of both forms, and puts the name where it is missing.
func (o *object) list(network string) ([]*object, error) {
	quotedName, err := json.Marshal(network)
	if err != nil {
		return nil, err
	}
	o.fields["name"] = quotedName
	raw, ok := o.fields["plugins"]
	if !ok {
		return []*object{{o.name, maps.Clone(o.fields)}}, nil
	}
	if found, both := o.fields["type"]; both {
		return nil, o.wrong("type", string(truncated(found)), "remove it or plugins: a configuration is one plugin's or a list")
	}
	var texts []json.RawMessage
	if err := json.Unmarshal(raw, &texts); err != nil || len(texts) == 0 {
		return nil, o.wrong("plugins", string(truncated(raw)), "write a list of at least one plugin")
	}
	var out []*object
	for i, text := range texts {
		p, err := readObject(fmt.Sprintf("%s: plugins[%d]", o.name, i), text)
		if err != nil {
			return nil, err
		}
		p.fields["name"] = quotedName
		out = append(out, p)
	}
	return out, nil
}

// add reads what is needed of one plugin.
func (d *Definition) add(o *object, version json.RawMessage) error {
	var p Plugin
	if err := o.into("type", "the plugin's name", &p.Type); err != nil {
		return err
	}
	switch {
	case p.Type == "":
		return o.wrong("type", "missing", "write the plugin's name")
	case badPlugin(p.Type):
		return o.wrong("type", quoted(p.Type), "write a plugin's name without a path: it is looked for in the node's plugin directory")
	}
	declared := map[string]bool{}
	if err := o.into("capabilities", `an object such as {"ips":true}`, &declared); err != nil {
		return err
	}
	maps.DeleteFunc(declared, func(_ string, has bool) bool { return !has })
	if p.Ours = Ours(p.Type); p.Ours {
		for _, name := range ourCapabilities() {
			declared[name] = true
		}
	}
	p.Capabilities = slices.Sorted(maps.Keys(declared))
	if version != nil {
		o.fields["cniVersion"] = version
	}
	var err error
	if p.Config, err = json.Marshal(o.fields); err != nil {
		return o.wrong("", err.Error(), "write JSON")
	}
	if p.Ours {
		if d.Config != nil {
			return o.wrong("type", quoted(p.Type), "remove it: another plugin of the list attaches the pod to this network already")
		}
		if d.Config, err = ParseConfig(p.Config, d.Key); err != nil {
			return err
		}
	}
	d.Plugins = append(d.Plugins, p)
	return nil
}

// normal is the configuration as a list; keys of a list that was one stay.
func (o *object) normal(plugins []Plugin) (json.RawMessage, error) {
	out := map[string]json.RawMessage{}
	if _, list := o.fields["plugins"]; list {
		out = maps.Clone(o.fields)
	}
	for _, key := range []string{"name", "cniVersion"} {
		if raw, ok := o.fields[key]; ok {
			out[key] = raw
		}
	}
	texts := make([]json.RawMessage, len(plugins))
	for i, p := range plugins {
		texts[i] = p.Config
	}
	var err error
	if out["plugins"], err = json.Marshal(texts); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// badPlugin reports a plugin type that names a file elsewhere than in the node's
// plugin directory: libcni joins the two.
func badPlugin(name string) bool {
	return strings.ContainsAny(name, "/\\\x00") || name == "." || name == ".."
}

// EditPlugins makes the plugins of a configuration list others, and leaves its other keys.
func EditPlugins(list json.RawMessage, edit func([]json.RawMessage) ([]json.RawMessage, error)) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	var plugins []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["plugins"], &plugins); err != nil {
		return nil, err
	}
	plugins, err := edit(plugins)
	if err != nil {
		return nil, err
	}
	if all["plugins"], err = json.Marshal(plugins); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}
