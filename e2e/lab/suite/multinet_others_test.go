package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// otherPlugins are definitions of plugins of others, and of ours with theirs: a bridge of
// the node, one of ours after which tuning runs, two of ours whose addresses plugins give.
func otherPlugins() string {
	raw := func(name, config string) string {
		return fmt.Sprintf(`---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: %s, namespace: %s}
spec:
  config: '{"cniVersion":"1.0.0","name":"suite-%s",%s}'
`, name, namespace, name, config)
	}
	return raw("bridged", `"type":"bridge","bridge":"suite-br0","isGateway":true,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.95.0.0/24"}]]}`) +
		raw("chained", fmt.Sprintf(`"plugins":[{"type":"portolan","netAttachDefName":"%s/chained","topology":"layer2","subnets":"10.151.0.0/24"},{"type":"tuning","sysctl":{"net.ipv4.conf.all.log_martians":"1"}}]`, namespace)) +
		definition("leased", `"topology":"layer2","ipam":{"type":"host-local","ranges":[[{"subnet":"10.152.0.0/24"}]]}`) +
		definition("fixed", `"topology":"layer2","ipam":{"type":"static"}`) +
		raw("absent", `"type":"no-such-plugin"`)
}

// TestMultinetOthers has pods on networks of plugins of others, without Multus: they reach each
// other there, network-status tells it, and nothing is left on the node. A plugin that is
// not there keeps its pod waiting, with a reason that names it.
func TestMultinetOthers(t *testing.T) {
	fresh(t)
	apply(t, otherPlugins())
	asks := func(address string) string {
		return fmt.Sprintf(`[{"name":"bridged"},{"name":"chained"},{"name":"leased"},{"name":"fixed","ips":["%s"]}]`, address)
	}
	apply(t, attachedPod("a", "ovn-worker", asks("10.153.0.1/24"))+attachedPod("b", "ovn-worker", asks("10.153.0.2/24"))+
		attachedPod("far", "ovn-worker2", `[{"name":"fixed","ips":["10.153.0.3/24"]},{"name":"chained"}]`))
	pods := attachedPods(t)
	for _, c := range []struct{ from, to, network string }{
		{"a", "b", "bridged"}, {"a", "b", "chained"}, {"a", "b", "leased"}, {"b", "a", "leased"}, {"a", "b", "fixed"},
		{"a", "far", "fixed"}, {"far", "b", "fixed"}, {"far", "a", "chained"},
	} {
		from, ok := pods[c.from].on(c.network)
		to, ok2 := pods[c.to].on(c.network)
		if !ok || !ok2 {
			t.Errorf("network-status of %s or %s does not tell of %s: %+v, %+v", c.from, c.to, c.network, pods[c.from].Interfaces, pods[c.to].Interfaces)
			continue
		}
		if err := inTime(20*time.Second, func() error { return answered(from, to) }); err != nil {
			t.Errorf("%s, %s to %s: %v", c.network, c.from, c.to, err)
		}
	}
	apply(t, attachedPod("waits", "ovn-worker", "absent"))
	err := inTime(60*time.Second, func() error {
		events := kubectl(t, "-n", namespace, "get", "events", "--field-selector", "involvedObject.name=waits", "-o", "jsonpath={.items[*].message}")
		if !strings.Contains(events, `plugin "no-such-plugin" is not in the node's plugin directory /opt/cni/bin`) {
			return fmt.Errorf("events %q", events)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	kubectl(t, "-n", namespace, "delete", "pod", "--all", "--wait=true", "--timeout=120s")
	err = inTime(60*time.Second, func() error {
		leases := lab(t, "exec", "ovn-worker", "--", "sh", "-c", "ls /var/lib/cni/networks/suite-bridged /var/lib/cni/networks/suite-leased /var/lib/portolan/plugins; ip -o link show master suite-br0")
		for _, word := range strings.Fields(leases) {
			if strings.HasPrefix(word, "10.") || strings.HasSuffix(word, ".json") || strings.HasPrefix(word, "veth") {
				return fmt.Errorf("left on ovn-worker: %q", leases)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
