package multus

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDefinitionsThatAreRead(t *testing.T) {
	for _, c := range []struct{ name, config, network, list string }{
		{"a plugin alone becomes a list", `{"cniVersion":"0.3.1","name":"br","type":"bridge"}`, "br",
			`{"cniVersion":"0.3.1","name":"br","plugins":[{"cniVersion":"0.3.1","name":"br","type":"bridge"}]}`},
		{"the definition's name is the network's where it has none", `{"type":"bridge","x":1}`, "nad",
			`{"name":"nad","plugins":[{"name":"nad","type":"bridge","x":1}]}`},
		{"a list's plugins have its name and version, and its keys stay", `{"cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"bridge"},{"type":"tuning","name":"other"}]}`, "nad",
			`{"cniVersion":"1.0.0","disableCheck":true,"name":"nad","plugins":[{"cniVersion":"1.0.0","name":"nad","type":"bridge"},{"cniVersion":"1.0.0","name":"nad","type":"tuning"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := ParseDefinition("ns/nad", c.config)
			if err != nil || d.Network != c.network || string(d.List) != c.list || d.Config != nil {
				t.Fatalf("got %+v, %v\nlist %s\nwant %s", d, err, d.List, c.list)
			}
			again, err := ParseDefinition("ns/nad", string(d.List))
			if err != nil || string(again.List) != c.list {
				t.Fatalf("read again: %s, %v", again.List, err)
			}
		})
	}
}

func TestAnEmptyConfigurationIsAFileOfTheNode(t *testing.T) {
	d, err := ParseDefinition("ns/nad", " \n")
	if err != nil || !d.ByName || d.Network != "nad" {
		t.Fatalf("got %+v, %v", d, err)
	}
}

func TestOurPluginIsFoundInAChain(t *testing.T) {
	for _, kind := range OurTypes() {
		d, err := ParseDefinition("ns/blue", `{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"`+kind+`","topology":"layer2","netAttachDefName":"ns/blue"},{"type":"tuning","capabilities":{"mac":true,"ips":false}}]}`)
		if err != nil {
			t.Fatal(err)
		}
		if !d.Plugins[0].Ours || d.Plugins[1].Ours || d.Config == nil || d.Config.Name != "blue" || d.Config.Topology != Layer2 {
			t.Errorf("%s: %+v", kind, d)
		}
		if !slices.Equal(d.Plugins[1].Capabilities, []string{"mac"}) {
			t.Errorf("a capability that is false is declared: %v", d.Plugins[1].Capabilities)
		}
		if !d.Plugins[0].Has("ips") || d.Plugins[0].Has("portMappings") {
			t.Errorf("ours has %v", d.Plugins[0].Capabilities)
		}
	}
}

func TestDefinitionsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, config, want string }{
		{"text that is no JSON", `{"type"`, "is no JSON object"},
		{"a missing type", `{"name":"a"}`, "type is missing; write the plugin's name"},
		{"a missing type in a list", `{"plugins":[{"type":"bridge"},{}]}`, "plugins[1]: type is missing"},
		{"a type with a path", `{"type":"../../bin/sh"}`, `type is "../../bin/sh"; write a plugin's name without a path`},
		{"a type with a path in a list", `{"plugins":[{"type":"a/b"}]}`, "plugins[0]: type is"},
		{"a type that is a directory", `{"type":".."}`, "without a path"},
		{"a name with a slash", `{"name":"a/b","type":"bridge"}`, "name is"},
		{"a name that is no text", `{"name":1,"type":"bridge"}`, "name is 1"},
		{"a version that is no text", `{"cniVersion":1,"type":"bridge"}`, "cniVersion is 1"},
		{"a type beside plugins", `{"type":"portolan","plugins":[{"type":"bridge"}]}`, "type is \"portolan\"; remove it or plugins"},
		{"an empty list of plugins", `{"plugins":[]}`, "plugins is []"},
		{"plugins that are no list", `{"plugins":{}}`, "plugins is {}"},
		{"a plugin that is no object", `{"plugins":["bridge"]}`, "plugins[0]"},
		{"a key given twice", `{"type":"a","type":"b"}`, "type is given twice"},
		{"a plugin's key given twice", `{"plugins":[{"type":"a","type":"b"}]}`, "type is given twice"},
		{"capabilities that are a list", `{"type":"bridge","capabilities":["ips"]}`, "capabilities is"},
		{"two plugins of ours", `{"name":"blue","plugins":[{"type":"portolan","topology":"layer2","netAttachDefName":"ns/nad"},{"type":"portolan"}]}`, "another plugin of the list attaches the pod"},
		{"a network of ours with a wrong field", `{"name":"blue","type":"ovn-k8s-cni-overlay","topology":"layer2","netAttachDefName":"ns/nad","vlanID":3}`, "vlanID is 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := ParseDefinition("ns/nad", c.config)
			var e *FieldError
			if d != nil || !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) ||
				!strings.HasPrefix(err.Error(), "NetworkAttachmentDefinition ns/nad: spec.config: ") {
				t.Fatalf("got %v, %v; want %q", d, err, c.want)
			}
		})
	}
}

func FuzzParseDefinition(f *testing.F) {
	f.Add(`{"cniVersion":"1.0.0","plugins":[{"type":"bridge"},{"type":"tuning","capabilities":{"mac":true}}]}`)
	f.Add(network(`"subnets":"10.1.0.0/16"`))
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDefinition("ns/blue", text)
		if err != nil || d.ByName {
			return
		}
		for _, p := range d.Plugins {
			if badPlugin(p.Type) || p.Type == "" {
				t.Fatalf("accepted %+v", p)
			}
		}
		again, err := ParseDefinition("ns/blue", string(d.List))
		if err != nil || string(again.List) != string(d.List) || again.Network != d.Network {
			t.Fatalf("%s is read again as %+v, %v", d.List, again, err)
		}
	})
}
