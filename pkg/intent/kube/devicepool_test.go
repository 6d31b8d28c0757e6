package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestDevicePoolsOfFiles: what the API server would refuse, a file's reader refuses, by
// field; what it makes of the rest says that it is not to be relied on.
func TestDevicePoolsOfFiles(t *testing.T) {
	const pool = "apiVersion: portolan.io/v1alpha1\nkind: DevicePool\nmetadata: {name: fast}\nspec: "
	const nic = pool + "{resourceName: portolan.io/fast, nics: {pfNames: "
	for _, c := range []struct{ name, in, want string }{
		{"of NICs", pool + "{resourceName: portolan.io/fast, nics: {vendors: [15b3], pfNames: ['ens1f0#0-3,6', ens1f1]}, vfs: 8, mode: switchdev, driver: netdevice, rdma: true, tunnelInterface: uplink}", ""},
		{"soft", pool + "{resourceName: portolan.io/fast, kind: soft, soft: {count: 4}, mtu: 1400, rdma: false}", ""},
		{"no resource", pool + "{nics: {vendors: [15b3]}}", `spec.resourceName|"" is not a domain and a name`},
		{"Kubernetes' own", pool + "{resourceName: devices.kubernetes.io/x, nics: {vendors: [15b3]}}", `spec.resourceName|"devices.kubernetes.io/x": the kubelet takes no device of the domain kubernetes.io`},
		{"two dots", pool + "{resourceName: a..b/x, nics: {vendors: [15b3]}}", `spec.resourceName|"a..b/x" is not a domain`},
		{"quotas' own", pool + "{resourceName: requests.io/x, nics: {vendors: [15b3]}}", `spec.resourceName|"requests.io/x": the kubelet takes no device`},
		{"no NICs", pool + "{resourceName: a.b/x}", "spec.nics|say by nics which NICs the pool is of"},
		{"any NIC", pool + "{resourceName: a.b/x, nics: {}}", "spec.nics|give at least one of vendors"},
		{"soft by name only", pool + "{resourceName: a.b/x, kind: soft}", "spec.soft|a pool of kind soft needs soft.count"},
		{"soft with a tunnel's interface", pool + "{resourceName: a.b/x, kind: soft, soft: {count: 1}, tunnelInterface: eth1}", ""},
		{"soft with its NIC's tunnels", pool + "{resourceName: a.b/x, kind: soft, soft: {count: 1}, tunnelInterface: uplink}", "spec.tunnelInterface|soft devices are of no NIC"},
		{"soft with NICs", pool + "{resourceName: a.b/x, kind: soft, soft: {count: 1}, vfs: 2}", "spec.kind|a soft pool has no NICs: take nics"},
		{"both", pool + "{resourceName: a.b/x, soft: {count: 1}, nics: {vendors: [15b3]}}", "spec.soft|give soft, and it alone"},
		{"another kind", pool + "{resourceName: a.b/x, kind: hard, nics: {vendors: [15b3]}}", `spec.kind|"hard" is none of "nic" and "soft"`},
		{"too many", pool + "{resourceName: a.b/x, kind: soft, soft: {count: 300}}", "spec.soft.count|300 is none of 0 to 256"},
		{"too many VFs", pool + "{resourceName: a.b/x, vfs: 2000, nics: {vendors: [15b3]}}", "spec.vfs|2000 is none of 0 to 1024"},
		{"a mode", pool + "{resourceName: a.b/x, mode: fast, nics: {vendors: [15b3]}}", `spec.mode|"fast" is none of ["legacy" "switchdev"]`},
		{"a driver", pool + "{resourceName: a.b/x, driver: igb, nics: {vendors: [15b3]}}", `spec.driver|"igb" is none of ["netdevice" "vfio-pci"]`},
		{"RDMA of vfio", pool + "{resourceName: a.b/x, driver: vfio-pci, rdma: true, nics: {vendors: [15b3]}}", "spec.rdma|a function with the driver vfio-pci has no RDMA device"},
		{"an id", pool + "{resourceName: a.b/x, nics: {vendors: [15B3]}}", `spec.nics.vendors[0]|"15B3" is not 4 hex digits in lower case`},
		{"a link type", pool + "{resourceName: a.b/x, nics: {linkTypes: [wifi]}}", `spec.nics.linkTypes[0]|"wifi" is none of ["ether" "infiniband"]`},
		{"backwards", nic + "['ens1f0#3-1']}}", `spec.nics.pfNames[0]|"ens1f0#3-1": a range of VFs runs backwards: give the lower number first, as #1-3`},
		{"twice", nic + "['ens1f0#0-3,2']}}", `spec.nics.pfNames[0]|"ens1f0#0-3,2": VF 2 is named twice`},
		{"words", nic + "['ens1f0#a']}}", `spec.nics.pfNames[0]|"ens1f0#a" is not the network device of a NIC`},
		{"an address", pool + "{resourceName: a.b/x, nics: {rootDevices: [ens1f0]}}", `spec.nics.rootDevices[0]|"ens1f0" is not the PCI address of a NIC`},
		{"a selector", pool + "{resourceName: a.b/x, nodeSelector: {matchExpressions: [{key: a, operator: Like}]}, nics: {vendors: [15b3]}}", `spec.nodeSelector|"Like" is not a valid label selector operator; nothing is selected`},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, problems := Decode([]byte(c.in))
			if len(objects) != 1 {
				t.Fatalf("%d objects, %v", len(objects), problems)
			}
			o := objects[0].(*intent.DevicePool)
			got := ""
			for _, p := range problems {
				if got += p.Field + "|" + p.Message; p.Object != "DevicePool/fast" {
					t.Errorf("said of %s", p.Object)
				}
			}
			if !strings.HasPrefix(got, c.want) || c.want == "" && got != "" || (o.Invalid == "") != (c.want == "") || len(problems) > 1 {
				t.Errorf("invalid %q, problems %q, want %q", o.Invalid, got, c.want)
			}
		})
	}
	_, problems := Decode([]byte(pool + "{resourceName: a.b/x, nics: {pfName: [ens1f0]}}"))
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "did you mean spec.nics.pfNames?") {
		t.Errorf("an unknown field: %v", problems)
	}
}

func TestParseDevicePool(t *testing.T) {
	objects, problems := Decode([]byte(`apiVersion: portolan.io/v1alpha1
kind: DevicePool
metadata: {name: fast}
spec:
  resourceName: portolan.io/fast
  nodeSelector: {matchLabels: {nic: cx6}}
  nics: {vendors: [15b3], pfNames: [ens1f1, "ens1f0#6,0-3"], rootDevices: ["0000:03:00.0#1"]}
  vfs: 0
  mtu: 9000
  trusted: {matchExpressions: [{key: team, operator: Like}]}
  dryRun: true
`))
	trusted := noObject()
	want := &intent.DevicePool{
		Name: "fast", Nodes: intent.Labels{{Key: "nic", Op: intent.In, Values: []string{"cx6"}}}, Resource: "portolan.io/fast", MTU: 9000,
		NICs: intent.NICSelector{Vendors: []string{"15b3"}, PFNames: []intent.NICPart{{NIC: "ens1f0", VFs: [][2]int{{0, 3}, {6, 6}}}, {NIC: "ens1f1"}},
			RootDevices: []intent.NICPart{{NIC: "0000:03:00.0", VFs: [][2]int{{1, 1}}}}},
		Trusted: &trusted, DryRun: true,
	}
	got := objects[0].(*intent.DevicePool)
	if d := cmp.Diff(want, got); d != "" || !got.Equal(want) {
		t.Errorf("-want +got\n%s", d)
	}
	if len(problems) != 1 || problems[0].Field != "spec.trusted" || got.Trusts(nil) {
		t.Errorf("%v; trusts %t: a selector that cannot be read trusts nobody, and the pool goes on", problems, got.Trusts(nil))
	}
	if p := got.NICs.PFNames[0]; !p.Has(6) || p.Has(5) || !got.NICs.PFNames[1].Has(5) {
		t.Error("the wrong VFs are meant")
	}
	other := *want
	other.Trusted = nil
	if other.Equal(want) || want.Equal(&other) || other.Trusts(nil) {
		t.Error("no selector is not one that cannot be read")
	}
}
