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
		if now.Addr == old.Addr {
			t.Errorf("the new pod has the old one's address %s: it must rest", old.Addr)
		}
		serve(t, now.Place, port)
		a, err := packets.TCP(pods["peer"].Place, netip.AddrPortFrom(now.Addr, port), 1000, patient)
		if err != nil || a.Source != pods["peer"].Addr {
			t.Errorf("peer to again: source %v, %v", a.Source, err)
		}
		old = now
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
		if other := seen[p.Addr]; other != "" {
			t.Errorf("%s and %s both have %s", name, other, p.Addr)
		}
		seen[p.Addr] = name
	}
	if len(seen) != 60 {
		t.Errorf("%d addresses, want 60", len(seen))
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
	if err != nil || e.Copies != 1 || e.TTL != 64 {
		t.Errorf("peer to the static pod: %+v, %v", e, err)
	}
}
