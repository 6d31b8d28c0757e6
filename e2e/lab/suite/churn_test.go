package suite

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// TestMatrixPodRecreatedUnderItsName deletes a pod and creates one of the same
// name within a second: the new one must be reachable, and have its own address.
func TestMatrixPodRecreatedUnderItsName(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	apply(t, podManifest("again", host)+podManifest("peer", host))
	old := ready(t)["again"]
	for range 3 {
		kubectl(t, "-n", namespace, "delete", "pod", "again", "--wait=true", "--grace-period=0", "--force")
		apply(t, podManifest("again", host))
		pods := ready(t)
		now := pods["again"]
		serve(t, now.Place, port)
		for _, f := range families(t) {
			from, to := pods["peer"].In(f), now.In(f)
			if to.Addr == old.In(f).Addr {
				t.Errorf("the new pod has the old one's address %s: it must rest", to.Addr)
			}
			a, err := packets.TCP(from.Place, netip.AddrPortFrom(to.Addr, port), 1000, patient)
			if err != nil || a.Source != from.Addr {
				t.Errorf("peer to again: source %v, %v", a.Source, err)
			}
		}
		old = now
	}
}

// TestMatrixConnectionsGoWithThePod: what connection tracking remembers of a pod's
// address is gone before the address can be another's (decision 32).
func TestMatrixConnectionsGoWithThePod(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	apply(t, podManifest("talker", host)+podManifest("stayer", host))
	pods, client := ready(t), outside(t)
	serve(t, client, port)
	tracked := func(p pod) int {
		table := lab(t, "exec", host, "--", "sh", "-c", "ovs-appctl -t /run/openvswitch/ovs-vswitchd.*.ctl dpctl/dump-conntrack")
		n := 0
		for _, a := range p.Addrs {
			n += strings.Count(table, "src="+a.String()+",")
		}
		return n
	}
	for _, f := range families(t) {
		for _, p := range pods {
			to := netip.AddrPortFrom(client.In(f).Addr, port)
			if _, err := packets.TCP(p.In(f).Place, to, 1000, patient); err != nil {
				t.Error(err)
			}
			if _, err := packets.UDP(p.In(f).Place, to, 1000, true, patient); err != nil {
				t.Error(err)
			}
		}
	}
	if want := 2 * len(families(t)); tracked(pods["talker"]) < want || tracked(pods["stayer"]) < want {
		t.Fatalf("%d and %d connections are tracked, want at least %d each: nothing to show", tracked(pods["talker"]), tracked(pods["stayer"]), want)
	}
	kubectl(t, "-n", namespace, "delete", "pod", "talker", "--wait=true", "--grace-period=0", "--force")
	deadline := time.Now().Add(20 * time.Second) // well within the address's rest of 60 s
	for tracked(pods["talker"]) > 0 && time.Now().Before(deadline) {
	}
	if n := tracked(pods["talker"]); n > 0 {
		t.Errorf("20 s after the pod's end %d connections of its addresses are remembered", n)
	}
	if tracked(pods["stayer"]) == 0 {
		t.Error("the connections of another pod went with it")
	}
}

// databases is the content of a node's databases that pods can change, without
// what counts or measures, sorted.
func databases(t testing.TB, host string) string {
	t.Helper()
	var all []string
	add := func(db, text string) {
		for _, line := range strings.Split(text, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				all = append(all, db+" "+line)
			}
		}
	}
	for _, table := range []string{"Logical_Switch", "Logical_Switch_Port", "Logical_Router", "Logical_Router_Port", "Logical_Router_Static_Route", "Logical_Router_Policy", "NAT", "ACL", "Address_Set", "Port_Group"} {
		add("NB "+table, lab(t, "nbctl", "--node", host, "--format=csv", "--no-headings", "--columns=_uuid,external_ids", "list", table))
	}
	add("SB Port_Binding", lab(t, "sbctl", "--node", host, "--format=csv", "--no-headings", "--columns=logical_port,type,mac", "list", "Port_Binding"))
	add("SB Datapath_Binding", lab(t, "sbctl", "--node", host, "--format=csv", "--no-headings", "--columns=tunnel_key", "list", "Datapath_Binding"))
	add("OVS Port", lab(t, "vsctl", host, "--format=csv", "--no-headings", "--columns=name", "list", "Port"))
	add("links", lab(t, "exec", host, "--", "sh", "-c", "ls /sys/class/net"))
	add("nft", lab(t, "exec", host, "--", "sh", "-c", "nft list tables netdev 2>/dev/null; nft list chains netdev 2>/dev/null | grep chain || true"))
	sort.Strings(all)
	return strings.Join(all, "\n")
}

// TestMatrixSixtyPodsComeAndGo scales a Deployment on one node from 0 to 60 and
// back: afterwards the databases, the OVS ports, the links and the nftables
// chains are what they were.
func TestMatrixSixtyPodsComeAndGo(t *testing.T) {
	fresh(t)
	host := "ovn-worker2"
	before := databases(t, host)
	apply(t, fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: sixty, namespace: %s}
spec:
  replicas: 60
  selector: {matchLabels: {app: sixty}}
  template:
    metadata: {labels: {app: sixty}}
    spec:
      nodeName: %s
      terminationGracePeriodSeconds: 0
      containers:
      - {name: pause, image: registry.k8s.io/pause:3.10.1}
`, namespace, host))
	began := time.Now()
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/sixty", "--timeout=170s")
	t.Logf("60 pods ready after %v", time.Since(began).Round(time.Second))
	seen := map[netip.Addr]string{}
	for name, p := range ready(t) {
		for _, addr := range p.Addrs {
			if other := seen[addr]; other != "" {
				t.Errorf("%s and %s both have %s", name, other, addr)
			}
			seen[addr] = name
		}
	}
	if want := 60 * len(families(t)); len(seen) != want {
		t.Errorf("%d addresses, want %d", len(seen), want)
	}
	kubectl(t, "-n", namespace, "scale", "deployment/sixty", "--replicas=0")
	kubectl(t, "-n", namespace, "wait", "--for=delete", "pod", "-l", "app=sixty", "--timeout=150s")
	deadline := time.Now().Add(30 * time.Second)
	after := databases(t, host)
	for after != before && time.Now().Before(deadline) {
		after = databases(t, host) // each look takes a second or more: no need to wait between them
	}
	if after != before {
		t.Errorf("60 pods came and went and left this:\n%s", difference(before, after))
	}
}

// difference lists the lines that only one of two sorted texts has.
func difference(before, after string) string {
	count := map[string]int{}
	for _, l := range strings.Split(before, "\n") {
		count[l]--
	}
	for _, l := range strings.Split(after, "\n") {
		count[l]++
	}
	var out []string
	for l, n := range count {
		if n > 0 {
			out = append(out, "+ "+l)
		} else if n < 0 {
			out = append(out, "- "+l)
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

// TestMatrixStaticPod runs a static pod: its sandbox is made under the kubelet's
// own UID, before the API server knows a mirror.
func TestMatrixStaticPod(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	manifest := strings.TrimPrefix(podManifest("static", host), "---\n")
	manifest = strings.Replace(manifest, "  nodeName: "+host+"\n", "", 1)
	file := "/etc/kubernetes/manifests/portolan-suite.yaml"
	lab(t, "exec", host, "--", "sh", "-c", "mkdir -p /etc/kubernetes/manifests && cat > "+file+" <<'Y'\n"+manifest+"Y\n")
	t.Cleanup(func() { lab(t, "exec", host, "--", "rm", "-f", file) })
	apply(t, podManifest("peer", host))
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(kubectl(t, "-n", namespace, "get", "pods", "-o", "name"), "static-"+host) {
		if time.Now().After(deadline) {
			t.Fatal("no mirror of the static pod appeared")
		}
	}
	pods := ready(t)
	p, ok := pods["static-"+host]
	if !ok {
		t.Fatalf("pods are %v", pods)
	}
	e, err := packets.Ping(pods["peer"].Place, p.Addr, 56, false, patient)
	if err != nil || e.Copies != 1 || e.TTL != sameNode {
		t.Errorf("peer to the static pod: %+v, %v", e, err)
	}
}
