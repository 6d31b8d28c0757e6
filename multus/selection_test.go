package multus

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestNetworksThatAreRead(t *testing.T) {
	a := func(change func(*Selection)) []Selection {
		s := Selection{Namespace: "pod", Name: "a", Interface: "net1"}
		if change != nil {
			change(&s)
		}
		return []Selection{s}
	}
	for _, c := range []struct {
		name, text string
		want       []Selection
	}{
		{"an empty annotation asks for nothing", " ", nil},
		{"an empty list asks for nothing", "[]", []Selection{}},
		{"a name alone is in the pod's namespace", "a", a(nil)},
		{"an empty namespace in JSON is the pod's", `[{"name":"a","namespace":""}]`, a(nil)},
		{"one definition twice is two attachments", "a, x/a@up0", append(a(nil), Selection{Namespace: "x", Name: "a", Interface: "up0"})},
		{"an interface name with capitals, dots and underscores", "a@Up_0.1", a(func(s *Selection) { s.Interface = "Up_0.1" })},
		{"an address needs no prefix and a MAC is written one way", `[{"name":"a","ips":["10.0.0.1","fd00::1/64"],"mac":"0A-00-00-00-00-01"}]`,
			a(func(s *Selection) { s.IPs, s.MAC = []string{"10.0.0.1", "fd00::1/64"}, "0a:00:00:00:00:01" })},
		{"a key with a dot is another's", `[{"name":"a","x.io/k":1}]`, a(nil)},
		{"an infiniband GUID has eight bytes", `[{"name":"a","infiniband-guid":"C2:11:22:33:44:55:66:77"}]`,
			a(func(s *Selection) { s.InfinibandGUID = "c2:11:22:33:44:55:66:77" })},
		{"a port mapping is of TCP unless it says so", `[{"name":"a","portMappings":[{"hostPort":8080,"containerPort":80},{"hostPort":8080,"containerPort":53,"protocol":"UDP","hostIP":"10.0.0.1"}]}]`,
			a(func(s *Selection) {
				s.PortMappings = []PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}, {8080, 53, "udp", "10.0.0.1"}}
			})},
		{"a bandwidth of one way", `[{"name":"a","bandwidth":{"egressRate":1000000000,"egressBurst":8}}]`,
			a(func(s *Selection) { s.Bandwidth = &Bandwidth{EgressRate: 1000000000, EgressBurst: 8} })},
		{"a bandwidth without rates is none", `[{"name":"a","bandwidth":{}}]`, a(nil)},
		{"a default route by a gateway", `[{"name":"a","default-route":["10.0.0.1"]}]`,
			a(func(s *Selection) { s.DefaultRoute, s.Gateways = true, []netip.Addr{netip.MustParseAddr("10.0.0.1")} })},
		{"a default route by the configuration's gateway", `[{"name":"a","default-route":[]}]`, a(func(s *Selection) { s.DefaultRoute = true })},
		{"arguments of any form", `[{"name":"a","cni-args":{"k":[1]}}]`,
			a(func(s *Selection) { s.CNIArgs = map[string]json.RawMessage{"k": json.RawMessage("[1]")} })},
		{"a claim and a device", `[{"name":"a","ipam-claim-reference":"vm.net","deviceID":"0000:01:00.1"}]`,
			a(func(s *Selection) { s.Claim, s.DeviceID = "vm.net", "0000:01:00.1" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseNetworks(c.text, "pod")
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// one is an annotation of one entry with fields put in.
func one(fields string) string { return `[{"name":"a",` + fields + `}]` }

func TestNetworksThatAreRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a missing name", `[{"namespace":"x"}]`, "entry 0: name is"},
		{"an empty item", "a,,b", "entry 1: name is"},
		{"a name with two slashes", "a/b/c", "name is"},
		{"a namespace that is no label", "X/a", "namespace is"},
		{"an empty namespace", "/a", "namespace is"},
		{"an empty interface", "a@", "interface is"},
		{"an interface name of 16 characters", "a@abcdefghijklmnop", "interface is"},
		{"an interface name with a colon", "a@a:b", "interface is"},
		{"an interface name that is a directory", "a@..", "interface is"},
		{"a MAC of eight bytes", one(`"mac":"00:00:00:00:00:00:00:01"`), "mac is"},
		{"a MAC that is none", one(`"mac":"x"`), "mac is"},
		{"a MAC of zeros", one(`"mac":"00:00:00:00:00:00"`), "mac is"},
		{"a multicast MAC", one(`"mac":"01:00:5e:00:00:01"`), "this is a multicast address"},
		{"the broadcast MAC", one(`"mac":"ff:ff:ff:ff:ff:ff"`), "this is a multicast address"},
		{"an infiniband GUID of six bytes", one(`"infiniband-guid":"0a:00:00:00:00:01"`), "write eight bytes"},
		{"an address that is none", one(`"ips":["10.0.0.256"]`), "ips is"},
		{"an empty list of addresses", one(`"ips":[]`), "ips is []"},
		{"an address given twice", one(`"ips":["10.0.0.1","10.0.0.1/24"]`), "10.0.0.1 is there twice"},
		{"a multicast address", one(`"ips":["224.0.0.1"]`), "no address that an interface can have"},
		{"the unspecified address", one(`"ips":["::"]`), "no address that an interface can have"},
		{"an address with a zone", one(`"ips":["fe80::1%eth0"]`), "no address that an interface can have"},
		{"addresses as text", one(`"ips":"10.0.0.1"`), "write a list of addresses"},
		{"a host port out of range", one(`"portMappings":[{"hostPort":0,"containerPort":80}]`), "portMappings[0]: hostPort is 0"},
		{"a container port out of range", one(`"portMappings":[{"hostPort":80,"containerPort":65536}]`), "containerPort is 65536"},
		{"a protocol that is none", one(`"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]`), `protocol is "icmp"`},
		{"a host address that is none", one(`"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"x"}]`), "hostIP is"},
		{"a host port given twice", one(`"portMappings":[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":81}]`), "give tcp port 80 of the host once"},
		{"an unknown key of a port mapping", one(`"portMappings":[{"hostport":80,"containerPort":80}]`), "did you mean hostPort?"},
		{"a burst without its rate", one(`"bandwidth":{"ingressBurst":5,"egressRate":5}`), "ingressBurst is 5; give ingressRate too"},
		{"a negative rate", one(`"bandwidth":{"egressRate":-1}`), "egressRate is -1"},
		{"a rate with a unit", one(`"bandwidth":{"egressRate":"10M"}`), `egressRate is "10M"`},
		{"a gateway that is none", one(`"default-route":["x"]`), "default-route is"},
		{"two default routes", `[{"name":"a","default-route":[]},{"name":"b","default-route":["10.0.0.1"]}]`, "entry 1: default-route is [\"10.0.0.1\"]; remove it: entry 0 has it"},
		{"arguments that are a list", one(`"cni-args":[]`), "cni-args is []; write an object"},
		{"a claim with a slash", one(`"ipam-claim-reference":"x/y"`), "ipam-claim-reference is"},
		{"a claim beside addresses", one(`"ipam-claim-reference":"x","ips":["10.0.0.1"]`), "remove it or ips"},
		{"an unknown key", one(`"ip":"10.0.0.1"`), `field "ip" is not known; did you mean ips?`},
		{"a key in other letters", one(`"IPs":["10.0.0.1"]`), "did you mean ips?"},
		{"a key given twice", one(`"mac":"0a:00:00:00:00:01","mac":"0a:00:00:00:00:02"`), "given twice"},
		{"text after the list", `[{"name":"a"}] x`, "text after"},
		{"JSON that is broken", `[{`, "is no JSON list"},
		{"an object alone", `{"name":"a"}`, "is no JSON list"},
		{"a list of names", `["a"]`, "is no JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := ParseNetworks(c.text, "pod")
			var e *FieldError
			if list != nil || !errors.As(err, &e) || e.Do == "" || !strings.Contains(err.Error(), c.want) ||
				!strings.HasPrefix(err.Error(), "annotation k8s.v1.cni.cncf.io/networks") {
				t.Fatalf("got %v, %v; want an error with %q", list, err, c.want)
			}
		})
	}
}

func TestTheDefaultNetworkIsOneDefinition(t *testing.T) {
	if s, err := ParseDefaultNetwork("", "kube-system"); s != nil || err != nil {
		t.Errorf("an empty annotation: %v, %v", s, err)
	}
	if s, err := ParseDefaultNetwork("a", "kube-system"); err != nil || s.Key() != "kube-system/a" {
		t.Errorf("one name: %v, %v", s, err)
	}
	if _, err := ParseDefaultNetwork("a,b", "kube-system"); err == nil || !strings.Contains(err.Error(), "annotation v1.multus-cni.io/default-network: 2 networks; name one") {
		t.Errorf("two names: %v", err)
	}
}

func FuzzParseNetworks(f *testing.F) {
	f.Add("x/a@up0,b")
	f.Add(one(`"ips":["10.0.0.1"],"mac":"0a:00:00:00:00:01","bandwidth":{"egressRate":1}`))
	f.Add(one(`"portMappings":[{"hostPort":80,"containerPort":80}],"default-route":[],"cni-args":{"a":1}`))
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseNetworks(text, "pod")
		if err != nil && list != nil {
			t.Fatal("both a list and an error")
		}
		for _, s := range list {
			if !interfaceName(s.Interface) || s.Name == "" || s.Namespace == "" || s.Claim != "" && len(s.IPs) > 0 {
				t.Fatalf("accepted %+v", s)
			}
			for _, ip := range s.IPs {
				if _, _, err := ParseAsked(ip); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
