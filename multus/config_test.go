package multus

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// network is a configuration of a network with fields put in.
func network(fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return `{"cniVersion":"1.0.0","type":"portolan","name":"blue","netAttachDefName":"ns/blue"` + fields + `}`
}

// shown is a configuration in the form that Differences compares.
func shown(c *Config) string {
	var b strings.Builder
	for _, v := range c.values() {
		if v.value != "" && v.value != "false" {
			b.WriteString(v.field + "=" + v.value + " ")
		}
	}
	return strings.TrimSpace(b.String())
}

func TestConfigurationsThatAreRead(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"the topology is layer3 unless given, and a node has 24 or 64 bits of it", network(`"subnets":"fd01::/48,10.1.0.0/16"`),
			"name=blue topology=layer3 subnets=10.1.0.0/16/24,fd01::/48/64 offload=prefer"},
		{"a layer3 subnet has the length of a node's own", network(`"subnets":"10.1.0.0/16/26"`),
			"name=blue topology=layer3 subnets=10.1.0.0/16/26 offload=prefer"},
		{"a layer3 network can have several subnets of a family", network(`"subnets":"10.1.0.0/16, 10.3.0.0/16/25"`),
			"name=blue topology=layer3 subnets=10.1.0.0/16/24,10.3.0.0/16/25 offload=prefer"},
		{"a layer2 network without subnets gives no addresses", network(`"topology":"layer2"`),
			"name=blue topology=layer2 offload=prefer"},
		{"host bits are cleared, as OVN-Kubernetes does", network(`"topology":"layer2","subnets":"192.168.200.0/16"`),
			"name=blue topology=layer2 subnets=192.168.0.0/16 offload=prefer"},
		{"excluded and reserved parts are sorted and each once",
			network(`"topology":"layer2","subnets":"10.1.0.0/16","excludeSubnets":"10.1.9.0/24,10.1.0.0/28,10.1.9.0/24","reservedSubnets":"10.1.1.0/24"`),
			"name=blue topology=layer2 subnets=10.1.0.0/16 excludeSubnets=10.1.0.0/28,10.1.9.0/24 reservedSubnets=10.1.1.0/24 offload=prefer"},
		{"a localnet's physical network is the network's name unless given", network(`"topology":"localnet","vlanID":4094`),
			"name=blue topology=localnet vlanID=4094 physicalNetworkName=blue offload=prefer"},
		{"a localnet's physical network can be shared by name", network(`"topology":"localnet","physicalNetworkName":"wire","mtu":9000`),
			"name=blue topology=localnet mtu=9000 physicalNetworkName=wire offload=prefer"},
		{"persistent addresses on layer2", network(`"topology":"layer2","subnets":"10.1.0.0/16","allowPersistentIPs":true,"role":"secondary","offload":"require"`),
			"name=blue topology=layer2 subnets=10.1.0.0/16 allowPersistentIPs=true offload=require"},
		{"a zero is no value, also on the wrong topology", network(`"topology":"layer2","vlanID":0,"allowPersistentIPs":false,"physicalNetworkName":"","mtu":0`),
			"name=blue topology=layer2 offload=prefer"},
		{"addresses from a plugin", network(`"topology":"layer2","ipam":{"type":"host-local","subnet":"10.9.0.0/24"}`),
			`name=blue topology=layer2 offload=prefer ipam={"subnet":"10.9.0.0/24","type":"host-local"}`},
		{"an empty ipam is none", network(`"topology":"layer2","subnets":"10.1.0.0/16","ipam":{}`),
			"name=blue topology=layer2 subnets=10.1.0.0/16 offload=prefer"},
		{"keys that CNI and the peer's process have, and keys with a dot", network(`"topology":"layer2","capabilities":{"mac":true},"logFile":"/x","cniRequestTimeout":"2m","cni.dev/x":1`),
			"name=blue topology=layer2 offload=prefer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseConfig([]byte(c.text), "ns/blue")
			if err != nil {
				t.Fatal(err)
			}
			if s := shown(got); s != c.want || got.Default {
				t.Fatalf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func TestFieldsOfPrimaryNetworksAreToldToHaveNoEffect(t *testing.T) {
	c, err := ParseConfig([]byte(network(`"topology":"layer2","subnets":"10.1.0.0/16","infrastructureSubnets":"10.1.0.0/30","defaultGatewayIPs":"10.1.0.1",`+
		`"joinSubnet":"100.65.0.0/16,fd99::/64","transitSubnet":"100.88.0.0/16"`)), "ns/blue")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.NoEffect(); !reflect.DeepEqual(got, []string{"infrastructureSubnets", "defaultGatewayIPs", "joinSubnet", "transitSubnet"}) {
		t.Fatal(got)
	}
}

func TestTheDefaultNetworkHasNoConfiguration(t *testing.T) {
	for name, text := range map[string]string{
		"a configuration without fields of networks": `{"cniVersion":"0.4.0","name":"portolan","type":"portolan-cni"}`,
		"one with the default network's name":        `{"name":"default","type":"ovn-k8s-cni-overlay","netAttachDefName":"ns/blue"}`,
	} {
		c, err := ParseConfig([]byte(text), "ns/blue")
		if err != nil || !c.Default {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, text, field, want string }{
		{"text that is no JSON", `{`, "", "is no JSON object"},
		{"a list", `[]`, "", "is no JSON object"},
		{"text after the object", network("") + "x", "", "text after the JSON object; remove it"},
		{"a field given twice", network(`"mtu":1400,"mtu":1500`), "mtu", "given twice; leave one of them"},
		{"an unknown field, with the nearest", network(`"subnet":"10.1.0.0/16"`), "", `field "subnet" is not known; did you mean subnets?`},
		{"a field in other letters", network(`"MTU":1400`), "", `field "MTU" is not known; did you mean mtu?`},
		{"an unknown field, with all where none is near", network(`"colour":"red"`), "", "the fields are cniVersion, name,"},
		{"a field that only the peer has", network(`"transport":"evpn"`), "transport", "OVN-Kubernetes has this field and Portolan does not"},
		{"a missing name", `{"type":"portolan","netAttachDefName":"ns/blue"}`, "name", "write the network's name"},
		{"a name with a slash", `{"name":"a/b","netAttachDefName":"ns/blue"}`, "name", "write the network's name"},
		{"a default network with subnets", `{"name":"default","netAttachDefName":"ns/blue","subnets":"10.1.0.0/16"}`, "subnets", "choose another name"},
		{"a missing netAttachDefName", `{"name":"blue","topology":"layer2"}`, "netAttachDefName", `write "ns/blue"`},
		{"another's netAttachDefName", `{"name":"blue","topology":"layer2","netAttachDefName":"x/blue"}`, "netAttachDefName", `is "x/blue"; write "ns/blue"`},
		{"a primary network", network(`"topology":"layer2","role":"primary"`), "role", "Portolan has no primary networks yet"},
		{"a role that is none", network(`"topology":"layer2","role":"main"`), "role", `write "secondary"`},
		{"an unknown topology", network(`"topology":"bridge"`), "topology", `is "bridge"; write "layer3", "layer2" or "localnet"`},
		{"a topology with a slip", network(`"topology":"Layer2"`), "topology", "did you mean layer2?"},
		{"a topology of a wrong type", network(`"topology":2`), "topology", "is 2; write"},
		{"layer3 without subnets", network(""), "subnets", "each node of a layer3 network has a subnet"},
		{"a subnet that is none", network(`"subnets":"10.1.0.0"`), "subnets", `"10.1.0.0" is no subnet such as`},
		{"subnets as a list", network(`"subnets":["10.1.0.0/16"]`), "subnets", "write a comma list"},
		{"an empty item of a list", network(`"subnets":"10.1.0.0/16,"`), "subnets", `"" is no subnet`},
		{"a length for nodes that is none", network(`"subnets":"10.1.0.0/16/x"`), "subnets", `"x" is not the length of a node's subnet`},
		{"a length for nodes that is no part", network(`"subnets":"10.1.0.0/16/16"`), "subnets", "is not a part of 10.1.0.0/16"},
		{"a length for nodes without room", network(`"subnets":"10.1.0.0/16/31"`), "subnets", "with room for a router and pods"},
		{"a default length that does not fit", network(`"subnets":"10.1.0.0/24"`), "subnets", "write /25 to /30 as the second length"},
		{"a fourth part of a subnet", network(`"subnets":"10.1.0.0/16/24/8"`), "subnets", "too many slashes"},
		{"a length for nodes on layer2", network(`"topology":"layer2","subnets":"10.1.0.0/16/24"`), "subnets", "only layer3 has those, remove /24"},
		{"a subnet of one address", network(`"topology":"layer2","subnets":"10.1.0.0/32"`), "subnets", "is too small"},
		{"subnets that overlap", network(`"subnets":"10.1.0.0/16,10.1.8.0/22/25"`), "subnets", "overlap: choose another"},
		{"two subnets of a family on layer2", network(`"topology":"layer2","subnets":"10.1.0.0/16,10.2.0.0/16"`), "subnets", "of one family"},
		{"a multicast subnet", network(`"topology":"layer2","subnets":"224.0.0.0/8"`), "subnets", "no addresses that pods can have"},
		{"IPv4 written as IPv6", network(`"topology":"layer2","subnets":"::ffff:10.1.0.0/112"`), "subnets", "write it as IPv4"},
		{"excluded subnets on layer3", network(`"subnets":"10.1.0.0/16","excludeSubnets":"10.1.0.0/28"`), "excludeSubnets", "a layer3 network has none, only layer2 and localnet"},
		{"reserved subnets on layer3", network(`"subnets":"10.1.0.0/16","reservedSubnets":"10.1.0.0/28"`), "reservedSubnets", "a layer3 network has none"},
		{"an excluded subnet elsewhere", network(`"topology":"layer2","subnets":"10.1.0.0/16","excludeSubnets":"10.2.0.0/28"`), "excludeSubnets", "10.2.0.0/28 is in none of subnets"},
		{"an excluded subnet without subnets", network(`"topology":"layer2","excludeSubnets":"10.2.0.0/28"`), "excludeSubnets", "is in none of subnets"},
		{"all of a subnet excluded", network(`"topology":"layer2","subnets":"10.1.0.0/16","excludeSubnets":"10.1.0.0/16"`), "excludeSubnets", "leaves no addresses"},
		{"a gateway elsewhere", network(`"topology":"layer2","subnets":"10.1.0.0/16","defaultGatewayIPs":"10.2.0.1"`), "defaultGatewayIPs", "write addresses of subnets"},
		{"two gateways of a family", network(`"topology":"layer2","subnets":"10.1.0.0/16","defaultGatewayIPs":"10.1.0.1,10.1.0.2"`), "defaultGatewayIPs", "one of each family"},
		{"gateways on layer3", network(`"subnets":"10.1.0.0/16","defaultGatewayIPs":"10.1.0.1"`), "defaultGatewayIPs", "only layer2"},
		{"infrastructure subnets on a localnet", network(`"topology":"localnet","infrastructureSubnets":"10.1.0.0/28"`), "infrastructureSubnets", "only layer2"},
		{"a transit subnet on layer3", network(`"subnets":"10.1.0.0/16","transitSubnet":"100.88.0.0/16"`), "transitSubnet", "only layer2"},
		{"a join subnet on a localnet", network(`"topology":"localnet","joinSubnet":"100.64.0.0/16"`), "joinSubnet", "only layer3 and layer2"},
		{"two join subnets of a family", network(`"topology":"layer2","joinSubnet":"100.64.0.0/16,100.65.0.0/16"`), "joinSubnet", "one of each family"},
		{"an MTU too small", network(`"topology":"layer2","mtu":500`), "mtu", "is 500; write bytes, 576 to 65535"},
		{"an MTU too large", network(`"topology":"layer2","mtu":70000`), "mtu", "576 to 65535"},
		{"an MTU too small for IPv6", network(`"topology":"layer2","subnets":"fd01::/64","mtu":1200`), "mtu", "write 1280 or more"},
		{"an MTU that is no number", network(`"topology":"layer2","mtu":"1400"`), "mtu", `is "1400"; write bytes`},
		{"a VLAN on layer2", network(`"topology":"layer2","vlanID":5`), "vlanID", "is 5; remove it: a layer2 network has none, only localnet"},
		{"a VLAN out of range", network(`"topology":"localnet","vlanID":4095`), "vlanID", "write a VLAN, 1 to 4094"},
		{"a negative VLAN", network(`"topology":"localnet","vlanID":-1`), "vlanID", "write a VLAN"},
		{"a physical network on layer3", network(`"subnets":"10.1.0.0/16","physicalNetworkName":"wire"`), "physicalNetworkName", "only localnet"},
		{"a physical network with a colon", network(`"topology":"localnet","physicalNetworkName":"a:br-ex"`), "physicalNetworkName", "write a PhysicalNetwork's name"},
		{"persistent addresses on layer3", network(`"subnets":"10.1.0.0/16","allowPersistentIPs":true`), "allowPersistentIPs", "only layer2 and localnet"},
		{"persistent addresses without subnets", network(`"topology":"layer2","allowPersistentIPs":true`), "allowPersistentIPs", "give subnets"},
		{"an offload that is none", network(`"topology":"layer2","offload":"yes"`), "offload", `write "require", "prefer" or "off"`},
		{"multiNetwork in a definition", network(`"topology":"layer2","multiNetwork":"native"`), "multiNetwork", "belongs into the node's CNI configuration"},
		{"ipam beside subnets", network(`"topology":"layer2","subnets":"10.1.0.0/16","ipam":{"type":"host-local"}`), "ipam", "remove it or subnets"},
		{"ipam without a type", network(`"topology":"layer2","ipam":{"subnet":"10.1.0.0/16"}`), "type", "name the plugin"},
		{"ipam of a type with a path", network(`"topology":"layer2","ipam":{"type":"../host-local"}`), "type", "without a path"},
		{"ipam that is no object", network(`"topology":"layer2","ipam":"host-local"`), "", "is no JSON object"},
		{"a null", network(`"topology":null`), "topology", "is null; write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(c.text), "ns/blue")
			var e *FieldError
			if !errors.As(err, &e) || e.Field != c.field || !strings.Contains(err.Error(), c.want) ||
				!strings.HasPrefix(err.Error(), "NetworkAttachmentDefinition ns/blue: spec.config: ") {
				t.Fatalf("got %v; want field %q and %q", err, c.field, c.want)
			}
		})
	}
}

func TestDefinitionsOfOneNetworkAgreeInEveryField(t *testing.T) {
	const base = `"topology":"layer2","subnets":"10.1.0.0/16,fd01::/64"`
	parse := func(fields string) *Config {
		c, err := ParseConfig([]byte(network(fields)), "ns/blue")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct{ name, a, b, want string }{
		{"how it is written is no difference", base, `"topology":"layer2","subnets":"fd01::/64, 10.1.0.0/16","mtu":0,"offload":"prefer","role":"secondary"`, ""},
		{"the device is an attachment's", base, base + `,"deviceID":"0000:01:00.1"`, ""},
		{"topology", `"topology":"localnet"`, `"topology":"layer2"`, `topology is "localnet" and "layer2"; physicalNetworkName is "blue" and ""`},
		{"subnets", base, `"topology":"layer2","subnets":"10.1.0.0/16"`, `subnets is "10.1.0.0/16,fd01::/64" and "10.1.0.0/16"`},
		{"the length of a node's subnet", `"subnets":"10.1.0.0/16"`, `"subnets":"10.1.0.0/16/25"`, `subnets is "10.1.0.0/16/24" and "10.1.0.0/16/25"`},
		{"excludeSubnets", base, base + `,"excludeSubnets":"10.1.0.0/28"`, `excludeSubnets is "" and "10.1.0.0/28"`},
		{"reservedSubnets", base, base + `,"reservedSubnets":"10.1.0.0/28"`, `reservedSubnets is "" and "10.1.0.0/28"`},
		{"infrastructureSubnets", base, base + `,"infrastructureSubnets":"10.1.0.0/28"`, `infrastructureSubnets is "" and "10.1.0.0/28"`},
		{"defaultGatewayIPs", base, base + `,"defaultGatewayIPs":"10.1.0.1"`, `defaultGatewayIPs is "" and "10.1.0.1"`},
		{"joinSubnet", base, base + `,"joinSubnet":"100.65.0.0/16"`, `joinSubnet is "" and "100.65.0.0/16"`},
		{"transitSubnet", base, base + `,"transitSubnet":"100.88.0.0/16"`, `transitSubnet is "" and "100.88.0.0/16"`},
		{"mtu", base, base + `,"mtu":1400`, `mtu is "" and "1400"`},
		{"vlanID", `"topology":"localnet"`, `"topology":"localnet","vlanID":7`, `vlanID is "" and "7"`},
		{"physicalNetworkName", `"topology":"localnet"`, `"topology":"localnet","physicalNetworkName":"w"`, `physicalNetworkName is "blue" and "w"`},
		{"allowPersistentIPs", base, base + `,"allowPersistentIPs":true`, `allowPersistentIPs is "false" and "true"`},
		{"offload", base, base + `,"offload":"off"`, `offload is "prefer" and "off"`},
		{"ipam", `"topology":"layer2","ipam":{"type":"a","x":1}`, `"topology":"layer2","ipam":{"x":2,"type":"a"}`, `ipam is "{\"type\":\"a\",\"x\":1}" and "{\"type\":\"a\",\"x\":2}"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, d := range Differences(parse(c.a), parse(c.b)) {
				got = append(got, d.String())
			}
			if s := strings.Join(got, "; "); s != c.want {
				t.Fatalf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(network(`"subnets":"10.1.0.0/16/24","mtu":1400`))
	f.Add(network(`"topology":"localnet","vlanID":5,"ipam":{"type":"static"}`))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig([]byte(text), "ns/blue")
		if err != nil {
			var e *FieldError
			if c != nil || !errors.As(err, &e) || e.Do == "" {
				t.Fatalf("%+v, %v", c, err)
			}
			return
		}
		if len(Differences(c, c)) > 0 {
			t.Fatal("differs from itself")
		}
		if c.Default {
			return
		}
		again, err := ParseSubnets(c.Topology, joined(c.Subnets))
		if err != nil || !reflect.DeepEqual(again, c.Subnets) {
			t.Fatalf("subnets %v are read as %v, %v", c.Subnets, again, err)
		}
	})
}
