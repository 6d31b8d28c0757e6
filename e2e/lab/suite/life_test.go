package suite

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// agentOf is the portolan-node pod of a node.
func agentOf(t testing.TB, host string) string {
	t.Helper()
	return strings.TrimSpace(kubectl(t, "-n", "portolan", "get", "pods", "-l", "app.kubernetes.io/name=portolan-node",
		"--field-selector", "spec.nodeName="+host, "-o", "jsonpath={.items[*].metadata.name}"))
}

// logical is what a zone's NB database holds of ours, with the version of every
// row: a row that is written again, even to what it was, differs.
func logical(t testing.TB, host string) string {
	t.Helper()
	var all []string
	for _, table := range []string{"Logical_Switch", "Logical_Switch_Port", "Logical_Router", "Logical_Router_Port",
		"Logical_Router_Static_Route", "Logical_Router_Policy", "NAT", "ACL", "Meter", "Meter_Band", "Copp"} {
		all = append(all, table+"\n"+lab(t, "nbctl", "--node", host, "--format=csv", "--columns=_uuid,external_ids", "list", table))
	}
	return strings.Join(all, "\n")
}

// TestMatrixAgentRestart deletes the agent's pod of a node, with the zone's
// databases, northd and ovn-controller in it, under a stream of pings: the
// databases hold what they held, and pods go on talking.
func TestMatrixAgentRestart(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	apply(t, podManifest("a", host)+podManifest("b", "ovn-worker2"))
	pods := ready(t)
	before := logical(t, host)
	old := agentOf(t, host)
	stop := make(chan struct{})
	var lost, sent int
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent++
			// Ping asks up to three times: one lost is one of three without an answer.
			if _, err := packets.Ping(pods["a"].Place, pods["b"].Addr, 56, false, 600*time.Millisecond); err != nil {
				lost++
			}
		}
	}()
	kubectl(t, "-n", "portolan", "delete", "pod", old, "--wait=true")
	kubectl(t, "-n", "portolan", "rollout", "status", "daemonset/portolan-node", "--timeout=100s")
	close(stop)
	wg.Wait()
	t.Logf("%d of %d rounds without an answer while the agent's pod was replaced", lost, sent)
	if lost > 0 {
		t.Errorf("%d of %d rounds without an answer, want 0: no daemon but vswitchd carries packets", lost, sent)
	}
	if after := logical(t, host); after != before {
		t.Errorf("the restart changed the northbound database:\n%s", difference(before, after))
	}
	apply(t, podManifest("c", host))
	c := ready(t)["c"]
	if e, err := packets.Ping(c.Place, pods["b"].Addr, 56, false, patient); err != nil || e.TTL != otherNode(t) {
		t.Errorf("a pod made after the restart: %+v, %v", e, err)
	}
}

// TestMatrixReboot kills everything of a node at once and boots it: the gateway
// is taken over again, and the pod on it comes back with its own address.
func TestMatrixReboot(t *testing.T) {
	fresh(t)
	host := "ovn-worker2"
	apply(t, podManifest("a", "ovn-worker")+podManifest("b", host))
	old := ready(t)
	lab(t, "crash", host)
	lab(t, "boot", "--wait", host)
	kubectl(t, "wait", "--for=condition=Ready", "node/"+host, "--timeout=120s")
	deadline := time.Now().Add(2 * time.Minute)
	var err error
	for time.Now().Before(deadline) {
		if _, err = packets.Ping(old["a"].Place, old["b"].Addr, 56, false, 3*time.Second); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatalf("two minutes after the boot, a to b at its old address: %v", err)
	}
	now := ready(t)["b"]
	if !slices.Equal(now.Addrs, old["b"].Addrs) {
		t.Errorf("b has %s, had %s: an address belongs to the pod", now.Addrs, old["b"].Addrs)
	}
	m := machines(t)[host]
	serve(t, now.Place, port)
	for _, f := range families(t) {
		for _, from := range []packets.Place{old["a"].Place, m.Place} {
			if _, err := packets.TCP(from.In(f), netip.AddrPortFrom(now.In(f).Addr, port), 1<<16, patient); err != nil {
				t.Errorf("%s to b after the reboot, %s: %v", from.Name, f, err)
			}
		}
	}
	for _, addr := range m.Addrs {
		if got := addressHolder(t, m, addr); got != "br-ex" {
			t.Errorf("%s is on %q, want br-ex", addr, got)
		}
	}
}

// addressHolder names the interface of a place that has an address.
func addressHolder(t testing.TB, p machine, addr netip.Addr) string {
	t.Helper()
	holder := ""
	err := p.Do(func() error {
		links, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, l := range links {
			addrs, _ := l.Addrs()
			for _, a := range addrs {
				if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == addr {
					holder = l.Name
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return holder
}

// TestMatrixZCleanup (the last by name) takes the agent off a node and runs
// `portolan-node cleanup` there: the NIC has the node's address and default route
// again, and nothing of ours is left; then the agent comes back.
func TestMatrixZCleanup(t *testing.T) {
	host := "ovn-worker2"
	m := machines(t)[host]
	agent := agentOf(t, host)
	keepOff := `{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"NotIn","values":["` + host + `"]}]}]}}}}}}}`
	back := func() {
		kubectl(t, "-n", "portolan", "patch", "daemonset", "portolan-node", "--type=json", "-p", `[{"op":"remove","path":"/spec/template/spec/affinity"}]`)
		kubectl(t, "-n", "portolan", "rollout", "status", "daemonset/portolan-node", "--timeout=150s")
		kubectl(t, "wait", "--for=condition=Ready", "node", "--all", "--timeout=100s")
	}
	kubectl(t, "-n", "portolan", "patch", "daemonset", "portolan-node", "--type=merge", "-p", keepOff)
	t.Cleanup(back)
	kubectl(t, "-n", "portolan", "wait", "--for=delete", "pod/"+agent, "--timeout=100s")
	apply(t, cleanupPod(t, host))
	t.Cleanup(func() { kubectl(t, "-n", "portolan", "delete", "pod", "cleanup", "--ignore-not-found") })
	kubectl(t, "-n", "portolan", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/cleanup", "--timeout=90s")
	for _, addr := range m.Addrs {
		if got := addressHolder(t, m, addr); got != "eth0" {
			t.Errorf("after the cleanup %s is on %q, want eth0", addr, got)
		}
		if _, err := packets.Ping(outside(t), addr, 56, false, patient); err != nil {
			t.Errorf("outside to node at %s after the cleanup: %v", addr, err)
		}
	}
	for what, command := range map[string]string{
		"routes of ours": "ip route show proto 85; ip -6 route show proto 85", "bridges": "ls -d /sys/class/net/br-ex /sys/class/net/br-int /sys/class/net/ovn-k8s-mp0 2>/dev/null || true",
		"the conflist": "ls /etc/cni/net.d/10-portolan.conflist 2>/dev/null || true",
	} {
		if out := strings.TrimSpace(lab(t, "exec", host, "--", "sh", "-c", command)); out != "" {
			t.Errorf("after the cleanup there are %s: %s", what, out)
		}
	}
}

// cleanupPod is the agent's own pod with another command, and no other container.
func cleanupPod(t *testing.T, host string) string {
	t.Helper()
	var ds struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Name         string
						Image        string
						VolumeMounts json.RawMessage
					}
					Volumes json.RawMessage
				}
			}
		}
	}
	decode(t, kubectl(t, "-n", "portolan", "get", "daemonset", "portolan-node", "-o", "json"), &ds)
	for _, c := range ds.Spec.Template.Spec.Containers {
		if c.Name == "portolan-node" {
			return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: cleanup, namespace: portolan}
spec:
  nodeName: %s
  hostNetwork: true
  hostPID: true
  restartPolicy: Never
  tolerations: [{operator: Exists}]
  containers:
  - {name: cleanup, image: %q, command: [portolan-node, cleanup, --node-name=%s], securityContext: {privileged: true}, volumeMounts: %s}
  volumes: %s
`, host, c.Image, host, c.VolumeMounts, ds.Spec.Template.Spec.Volumes)
		}
	}
	t.Fatal("no container portolan-node in the DaemonSet")
	return ""
}
