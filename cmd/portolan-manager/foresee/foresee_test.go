package foresee

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/intent"
)

func definition(name, config string) *intent.Definition {
	return &intent.Definition{Namespace: "demo", Name: name, UID: "u-" + name,
		Config: `{"cniVersion":"1.0.0","type":"ovn-k8s-cni-overlay","netAttachDefName":"demo/` + name + `",` + config + `}`}
}

func there() []intent.Object {
	subnet := []intent.NetworkSubnet{{Prefix: netip.MustParsePrefix("10.9.0.0/16")}}
	return []intent.Object{
		&intent.Cluster{Zone: "node1", MTU: 1400, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}},
		&intent.Namespace{Name: "demo"},
		definition("blue", `"name":"blue","topology":"layer2","subnets":"10.9.0.0/16"`),
		&intent.Network{Name: "blue", ID: 7, Topology: intent.Layer2, Subnets: subnet, Offload: "prefer", Definitions: []string{"demo/blue"}},
		&intent.Presence{Network: "blue", Node: "node1"},
		&intent.Pod{Namespace: "demo", Name: "web", UID: "u", Node: "node1", Attachments: []intent.Attachment{{Network: "demo/blue", MAC: "0a:58:0a:09:00:05"}}},
	}
}

func TestWhatDefinitionsComeTo(t *testing.T) {
	for _, c := range []struct {
		name     string
		manifest intent.Object
		remove   bool
		objects  string
		says     []string
		wrong    string
	}{
		{"a new network", definition("red", `"name":"red","topology":"layer2","subnets":"10.10.0.0/16"`), false, "Network/red",
			[]string{"network red would be made: layer2, 10.10.0.0/16; id 8 is assumed", "no pod of this zone uses network red, so it costs no rows"}, ""},
		{"another definition of one that is there", definition("blue2", `"name":"blue","topology":"layer2","subnets":"10.9.0.0/16"`), false, "Network/blue",
			[]string{"demo/blue2 is of network blue, which is there (id 7)"}, ""},
		{"one that differs", definition("blue2", `"name":"blue","topology":"layer2","subnets":"10.10.0.0/16"`), false, "", nil, "10.10.0.0/16"},
		{"one that cannot be", definition("bad", `"name":"bad","topology":"layer4"`), false, "", nil, "topology"},
		{"over the cluster's own", definition("over", `"name":"over","topology":"layer2","subnets":"10.244.0.0/20"`), false, "", nil, "overlaps"},
		{"a wire that is not there", definition("lan", `"name":"lan","topology":"localnet","physicalNetworkName":"storage"`), false, "", nil, "storage"},
		{"another plugin's", &intent.Definition{Namespace: "demo", Name: "bridge", Config: `{"cniVersion":"1.0.0","type":"bridge","name":"br"}`}, false, "",
			[]string{"demo/bridge is of no network of Portolan's"}, ""},
		{"a deletion in use", definition("blue", ""), true, "", []string{"demo/blue: 1 pods that are attached by it go on"}, ""},
	} {
		f := Networks(there(), []intent.Object{c.manifest}, c.remove)
		var objects, wrong []string
		for _, o := range f.Objects {
			objects = append(objects, o.Key().String())
		}
		for _, p := range f.Problems {
			wrong = append(wrong, p.Object+": "+p.Message)
		}
		if strings.Join(objects, " ") != c.objects {
			t.Errorf("%s: objects %v, wanted %q", c.name, objects, c.objects)
		}
		for _, s := range c.says {
			if !strings.Contains(strings.Join(f.Notes, "\n"), s) {
				t.Errorf("%s: no %q in %q", c.name, s, f.Notes)
			}
		}
		if text := strings.Join(wrong, "\n"); c.wrong == "" && text != "" || !strings.Contains(text, c.wrong) {
			t.Errorf("%s: problems %q, wanted %q", c.name, text, c.wrong)
		}
	}
}
