package apiserver

import (
	"strings"
	"testing"
)

// testDevicePools has each pool that cannot be refused, with words that name the field and
// what to do, and shows what kubectl shows of one that can.
func testDevicePools(t *testing.T, c *cluster) {
	const head = "apiVersion: portolan.io/v1alpha1\nkind: DevicePool\nmetadata: {name: fast}\nspec: "
	const nic = "resourceName: portolan.io/fast, nics: {vendors: [15b3]}"
	for _, bad := range []struct{ name, spec, want string }{ // want is the field and the words
		{"no resource", "{nics: {vendors: [15b3]}}", "spec.resourceName | Required value"},
		{"no domain", "{resourceName: fast, nics: {vendors: [15b3]}}", "spec.resourceName | give a domain and a name, as portolan.io/fast"},
		{"two dots", "{resourceName: a..b/fast, nics: {vendors: [15b3]}}", "spec.resourceName | give a domain and a name"},
		{"Kubernetes' own", "{resourceName: kubernetes.io/fast, nics: {vendors: [15b3]}}", "spec.resourceName | the kubelet takes no device of the domain kubernetes.io"},
		{"below Kubernetes' own", "{resourceName: x.kubernetes.io/fast, nics: {vendors: [15b3]}}", "spec.resourceName | the kubelet takes no device of the domain kubernetes.io"},
		{"quotas' own", "{resourceName: requests.io/fast, nics: {vendors: [15b3]}}", "spec.resourceName | the kubelet takes no device"},
		{"no NICs", "{resourceName: portolan.io/fast}", "spec | say by nics which NICs the pool is of"},
		{"any NIC", "{resourceName: portolan.io/fast, nics: {}}", "spec.nics | give at least one of vendors, devices, drivers, pfNames, rootDevices and linkTypes"},
		{"an empty list", "{resourceName: portolan.io/fast, nics: {vendors: []}}", "spec.nics.vendors | at least 1"},
		{"soft without soft", "{resourceName: portolan.io/fast, kind: soft}", "spec | give soft, and it alone, for kind soft"},
		{"soft of a NIC", "{" + nic + ", soft: {count: 1}}", "spec | give soft, and it alone, for kind soft"},
		{"NICs of soft", "{" + nic + ", kind: soft, soft: {count: 1}}", "spec | a soft pool has no NICs: take nics, vfs, mode, driver and rdma out"},
		{"a soft device's NIC", "{resourceName: portolan.io/fast, kind: soft, soft: {count: 1}, tunnelInterface: uplink}", "spec | soft devices are of no NIC, which uplink would be"},
		{"too many soft", "{resourceName: portolan.io/fast, kind: soft, soft: {count: 257}}", "spec.soft.count | 257"},
		{"a kind", "{" + nic + ", kind: hard}", `spec.kind | Unsupported value: "hard"`},
		{"a mode", "{" + nic + ", mode: fast}", `spec.mode | Unsupported value: "fast": supported values: "legacy", "switchdev"`},
		{"a driver", "{" + nic + ", driver: igb}", `spec.driver | Unsupported value: "igb"`},
		{"RDMA of vfio", "{" + nic + ", driver: vfio-pci, rdma: true}", "spec | a function with the driver vfio-pci has no RDMA device: take rdma out"},
		{"VFs", "{" + nic + ", vfs: 1025}", "spec.vfs | 1025"},
		{"a vendor", "{resourceName: portolan.io/fast, nics: {vendors: [15B3]}}", "spec.nics.vendors[0] | give 4 hex digits in lower case, as 15b3"},
		{"backwards", "{resourceName: portolan.io/fast, nics: {pfNames: ['ens1f0#3-1']}}", "spec.nics.pfNames[0] | a range of VFs runs backwards: give the lower number first, as #1-3"},
		{"overlapping", "{resourceName: portolan.io/fast, nics: {pfNames: [ens1f1, 'ens1f0#0-3,2-5']}}", "spec.nics.pfNames[1] | a VF is named twice: give each number once, as #0-3,6"},
		{"twice", "{resourceName: portolan.io/fast, nics: {pfNames: ['ens1f0#2,2']}}", "spec.nics.pfNames[0] | a VF is named twice"},
		{"no numbers", "{resourceName: portolan.io/fast, nics: {pfNames: ['ens1f0#a']}}", "spec.nics.pfNames[0] | give the network device of a NIC"},
		{"no address", "{resourceName: portolan.io/fast, nics: {rootDevices: ['03:00.0']}}", "spec.nics.rootDevices[0] | give the PCI address of a NIC"},
		{"an address twice", "{resourceName: portolan.io/fast, nics: {rootDevices: ['0000:03:00.0#1,0-2']}}", "spec.nics.rootDevices[0] | a VF is named twice"},
		{"a link type", "{resourceName: portolan.io/fast, nics: {linkTypes: [wifi]}}", `spec.nics.linkTypes[0] | Unsupported value: "wifi"`},
		{"an operator", "{" + nic + ", nodeSelector: {matchExpressions: [{key: a, operator: Like}]}}", "spec.nodeSelector | an operator is In or NotIn, with values, or Exists or DoesNotExist, without"},
		{"trust in a word", "{" + nic + ", trusted: {matchExpressions: [{key: a, operator: In}]}}", "spec.trusted | an operator is In or NotIn, with values"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			field, words, _ := strings.Cut(bad.want, " | ")
			c.refused(t, admin, head+bad.spec+"\n", field+": ")
			c.refused(t, admin, head+bad.spec+"\n", words)
		})
	}
	c.must(t, admin, head+`{resourceName: portolan.io/fast, nics: {pfNames: [ens1f1, 'ens1f0#0-3,6'], rootDevices: ['0000:03:00.0#1-2,0']}, vfs: 8, mode: switchdev,
  nodeSelector: {matchExpressions: [{key: nic, operator: In, values: [cx6]}, {key: old, operator: DoesNotExist}]}, tunnelInterface: uplink}`+"\n")
	c.must(t, admin, strings.Replace(head, "fast", "soft", 1)+"{resourceName: portolan.io/fast, kind: soft, soft: {count: 4}, rdma: false, tunnelInterface: eth1}\n")
	c.refused(t, agent("n1"), `{"apiVersion":"portolan.io/v1alpha1","kind":"DevicePool","metadata":{"name":"fast"},"spec":{"vfs":4}}`, "forbidden")
	c.refused(t, manager, `{"apiVersion":"portolan.io/v1alpha1","kind":"DevicePool","metadata":{"name":"fast"},"spec":{"vfs":4}}`, "forbidden")
	if got := c.kubectl(t, "get", "dpool"); !strings.HasPrefix(got, "NAME   READY   RESOURCE           KIND   NODES   DEVICES   AGE") || !strings.Contains(got, "portolan.io/fast   soft") {
		t.Errorf("kubectl shows\n%s", got)
	}
}
