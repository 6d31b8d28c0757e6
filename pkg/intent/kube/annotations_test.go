package kube

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// netipText makes cmp compare netip values, which hide their fields.
var netipText = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// parsed is one case of a parser: what it makes of a text, or a part of its error.
type parsed[T any] struct {
	in   string
	want T
	err  string
}

func check[T any](t *testing.T, parse func(string) (T, error), cases []parsed[T]) {
	t.Helper()
	for _, c := range cases {
		got, err := parse(c.in)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%q: %v", c.in, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: error %v, want one with %q", c.in, err, c.err)
		case c.err == "":
			if d := cmp.Diff(c.want, got, netipText...); d != "" {
				t.Errorf("%q: -want +got\n%s", c.in, d)
			}
		}
	}
}

func TestParseNodeID(t *testing.T) {
	check(t, ParseNodeID, []parsed[int]{
		{in: "2", want: 2}, {in: "5000", want: 5000},
		{in: "1", err: "not a number from 2"}, {in: "5001", err: "from 2 to 5000"}, {in: "", err: "not a number"},
		{in: "-3", err: "not a number"}, {in: "+3", err: "not a number"}, {in: "03", err: "not a number"}, {in: " 3", err: "not a number"},
	})
}

func TestParseNodeSubnets(t *testing.T) {
	check(t, ParseNodeSubnets, []parsed[[]netip.Prefix]{
		{in: `{"default":["10.244.1.0/24"]}`, want: prefixes("10.244.1.0/24")},
		{in: `{"default":"10.244.1.0/24"}`, want: prefixes("10.244.1.0/24")}, // before lists
		{in: `{"default":["fd00:1::/64","10.244.1.0/24"],"blue":["10.9.0.0/24"]}`, want: prefixes("10.244.1.0/24", "fd00:1::/64")},
		{in: `{"blue":["10.9.0.0/24"]}`, err: `no entry "default"`}, {in: `{"default":[]}`, err: `no entry "default" with a subnet`},
		{in: `["10.244.1.0/24"]`, err: "not of the form"},
		{in: `{"default":["10.244.1.5/24"]}`, err: "its network is 10.244.1.0/24"},
		{in: `{"default":["10.244.1.0/31"]}`, err: "too small"},
		{in: `{"default":["10.244.1.0"]}`, err: "not an address with a prefix length"},
		{in: `{"default":["::ffff:10.244.1.0/120"]}`, err: "IPv4"},
		{in: `{"default":["10.244.1.0/24","10.244.2.0/24"]}`, err: "of one family"},
	})
}

func TestParseOtherNodeAnnotations(t *testing.T) {
	check(t, ParseMgmtMAC, []parsed[string]{
		{in: `{"default":"0A:58:0a:f4:01:02"}`, want: "0a:58:0a:f4:01:02"},
		{in: "0a:58:0a:f4:01:02", want: "0a:58:0a:f4:01:02"},
		{in: `{"default":"01:00:5e:00:00:01"}`, err: "unicast"}, {in: `{"blue":"0a:58:0a:f4:01:02"}`, err: "no entry"},
		{in: `{`, err: "not of the form"},
	})
	check(t, ParseEncapIPs, []parsed[[]netip.Addr]{
		{in: `["172.18.0.2","fd00::2"]`, want: addrs("172.18.0.2", "fd00::2")},
		{in: `"172.18.0.2"`, err: "not a list"}, {in: `["node1"]`, err: "not an IP address"}, {in: `["fe80::1%eth0"]`, err: "unicast"},
	})
	check(t, ParseChassisID, []parsed[string]{
		{in: "5c0b2b6e-3b4e-4a6c-9d4e-000000000001", want: "5c0b2b6e-3b4e-4a6c-9d4e-000000000001"},
		{in: "", err: "chassis id"}, {in: "a b", err: "chassis id"}, {in: `a"b`, err: "chassis id"},
	})
	check(t, ParsePrimaryAddr, []parsed[[]netip.Prefix]{
		{in: `{"ipv6":"fd00::2/64","ipv4":"172.18.0.2/24"}`, want: prefixes("172.18.0.2/24", "fd00::2/64")},
		{in: `{}`, err: "neither"}, {in: `{"ipv4":"172.18.0.2"}`, err: "prefix length"},
	})
}

func TestParseGateway(t *testing.T) {
	full := intent.Gateway{
		Bridge: "br-ex", Interface: "eth0", MAC: "02:42:ac:12:00:02",
		Addresses: prefixes("172.18.0.2/24"), NextHops: addrs("172.18.0.1"),
	}
	old := full
	old.Interface = ""
	check(t, ParseGateway, []parsed[intent.Gateway]{
		{in: FormatGateway("node1", full, 0), want: full},
		{in: FormatGateway("node1", intent.Gateway{}, 0)},
		{in: `{"default":{"mode":"local","bridge-id":"br-ex","mac-address":"02:42:ac:12:00:02","ip-address":"172.18.0.2/24","next-hop":"172.18.0.1"}}`, want: old},
		{in: `{"default":{"mode":"routed"}}`, err: `mode "routed"`},
		{in: `{"default":{"mode":"shared"}}`, err: "no bridge-id"},
		{in: `{"default":{"mode":"shared","bridge-id":"br-ex","mac-address":"x"}}`, err: "mac-address"},
		{in: `{"default":{"mode":"shared","bridge-id":"br-ex","mac-address":"02:42:ac:12:00:02"}}`, err: "no ip-addresses"},
		{in: `{"default":{"mode":"shared","bridge-id":"br-ex","mac-address":"02:42:ac:12:00:02","ip-addresses":["172.18.0.2/24"],"next-hops":["gw"]}}`, err: "next-hops"},
		{in: `{}`, err: "no entry"}, {in: ``, err: "not of the form"},
	})
	var m map[string]map[string]any
	if err := json.Unmarshal([]byte(FormatGateway("node1", full, 7)), &m); err != nil {
		t.Fatal(err)
	}
	if d := m["default"]; d["interface-id"] != "br-ex_node1" || d["node-port-enable"] != "true" || d["vlan-id"] != "7" {
		t.Errorf("keys that other tools read: %v", d)
	}
}

func TestParsePodNetworks(t *testing.T) {
	a := intent.Attachment{
		Network: "default", MAC: "0a:58:0a:f4:01:05", Addresses: prefixes("10.244.1.5/24"), Gateways: addrs("10.244.1.1"),
	}
	b := intent.Attachment{Network: "a/blue", MAC: "0a:58:0a:09:00:05", Addresses: prefixes("10.9.0.5/16", "fd09::5/64")}
	one := []intent.Attachment{a}
	check(t, ParsePodNetworks, []parsed[[]intent.Attachment]{
		{in: FormatPodNetworks(one), want: one},
		{in: FormatPodNetworks([]intent.Attachment{a, b}), want: []intent.Attachment{{Network: "a/blue", MAC: b.MAC, Addresses: b.Addresses, Gateways: []netip.Addr{}}, a}},
		{in: `{"default":{"mac_address":"0a:58:0a:f4:01:05","ip_address":"10.244.1.5/24","gateway_ip":"10.244.1.1"}}`, want: one},
		{in: `{"default":{"mac_address":"0a:58:0a:f4:01:05","ip_addresses":["10.244.1.5"]}}`, err: `network "default": ip_addresses`},
		{in: `{"default":{"ip_addresses":["10.244.1.5/24"]}}`, err: "mac_address"},
		{in: `{"":{"mac_address":"0a:58:0a:f4:01:05"}}`, err: "has a name"},
		{in: `[]`, err: "not of the form"},
	})
	const want = `{"default":{"ip_addresses":["10.244.1.5/24"],"mac_address":"0a:58:0a:f4:01:05","gateway_ips":["10.244.1.1"],` +
		`"ip_address":"10.244.1.5/24","gateway_ip":"10.244.1.1","role":"primary"}}`
	if got := FormatPodNetworks(one); got != want {
		t.Errorf("annotation\n%s, want\n%s", got, want)
	}
}

// roundTrip checks that what a parser accepts it accepts again, unchanged, in the
// form that we write.
func roundTrip[T any](f *testing.F, seeds []string, parse func(string) (T, error), format func(T) string) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parse(s)
		if err != nil {
			return
		}
		again, err := parse(format(v))
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%q became %v, written %q, read %v, %v", s, v, format(v), again, err)
		}
	})
}

func FuzzNodeID(f *testing.F) {
	roundTrip(f, []string{"1", "5000", "x"}, ParseNodeID, func(id int) string { return encode(id) })
}

func FuzzNodeSubnets(f *testing.F) {
	roundTrip(f, []string{`{"default":["10.244.1.0/24","fd00:1::/64"]}`, `{"default":"10.244.1.0/24"}`}, ParseNodeSubnets, FormatNodeSubnets)
}

func FuzzEncapIPs(f *testing.F) {
	roundTrip(f, []string{`["172.18.0.2","fd00::2"]`}, ParseEncapIPs, func(a []netip.Addr) string { return encode(a) })
}

func FuzzMgmtMAC(f *testing.F) {
	roundTrip(f, []string{`{"default":"0a:58:0a:f4:01:02"}`, "0a-58-0a-f4-01-02"}, ParseMgmtMAC, func(s string) string { return s })
}

func FuzzChassisID(f *testing.F) {
	roundTrip(f, []string{"5c0b2b6e-3b4e-4a6c-9d4e-000000000001"}, ParseChassisID, func(s string) string { return s })
}

func FuzzPrimaryAddr(f *testing.F) {
	roundTrip(f, []string{`{"ipv4":"172.18.0.2/24","ipv6":"fd00::2/64"}`}, ParsePrimaryAddr, func(list []netip.Prefix) string {
		p := primaryAddr{}
		for _, n := range list {
			if n.Addr().Is4() {
				p.IPv4 = n.String()
			} else {
				p.IPv6 = n.String()
			}
		}
		return encode(p)
	})
}

func FuzzGateway(f *testing.F) {
	seed := intent.Gateway{Bridge: "br-ex", MAC: "02:42:ac:12:00:02", Addresses: prefixes("172.18.0.2/24"), NextHops: addrs("172.18.0.1")}
	roundTrip(f, []string{FormatGateway("n", seed, 0), FormatGateway("n", intent.Gateway{}, 0)}, ParseGateway,
		func(g intent.Gateway) string { return FormatGateway("n", g, 0) })
}

func FuzzPodNetworks(f *testing.F) {
	roundTrip(f, []string{`{"default":{"ip_addresses":["10.244.1.5/24"],"mac_address":"0a:58:0a:f4:01:05","gateway_ips":["10.244.1.1"]}}`},
		ParsePodNetworks, FormatPodNetworks)
}

// FuzzDecode checks that no text makes the door panic, or lets through an object
// that cannot be named.
func FuzzDecode(f *testing.F) {
	f.Add(cluster + "---\n" + node + "---\n" + pod)
	f.Fuzz(func(t *testing.T, s string) {
		objects, _ := Decode([]byte(s))
		for _, o := range objects {
			if _, ok := intent.ParseKey(o.Key().String()); !ok {
				t.Fatalf("object without a name: %#v", o)
			}
		}
	})
}
