package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// namespace is where the suite makes its pods.
const namespace = "portolan-suite"

// machine is a node of the cluster.
type machine struct {
	packets.Place
	Mgmt  netip.Addr   // of ovn-k8s-mp0: what pods of other nodes see of it
	Mgmts []netip.Addr // all of them, one a family
}

// In is the machine with its addresses of a family in use.
func (m machine) In(f packets.Family) machine {
	m.Place, m.Mgmt = m.Place.In(f), f.Pick(m.Mgmts)
	return m
}

// pod is a pod whose packets the suite sends.
type pod struct {
	packets.Place
	Node string
	Pod  string
	MAC  net.HardwareAddr
}

// In is the pod with its address of a family in use.
func (p pod) In(f packets.Family) pod {
	p.Place = p.Place.In(f)
	return p
}

// layout is the plan of the lab that is up.
func layout(t testing.TB) plan.Plan {
	t.Helper()
	var o plan.Options
	decode(t, lab(t, "options"), &o)
	return plan.Of(o)
}

// families lists the lab's, the one of primary addresses first.
func families(t testing.TB) []packets.Family {
	t.Helper()
	var out []packets.Family
	for _, a := range layout(t).Client.IPs() {
		out = append(out, packets.FamilyOf(a))
	}
	return out
}

// outside is the host that is not in the cluster.
func outside(t testing.TB) packets.Place {
	t.Helper()
	c := layout(t).Client
	return packets.Place{Name: c.Name, Path: wire.Path(wire.Namespace(c.Name)), Addr: c.IPs()[0], Addrs: c.IPs()}
}

// sameNode is the time to live with which a reply comes from a pod of the same
// node: one switch, no router.
const sameNode = 64

// otherNode is that of a reply from a pod of another node: a router in each zone
// takes one (decision 22).
func otherNode(t testing.TB) int {
	t.Helper()
	if layout(t).Zone == "global" {
		return sameNode - 1
	}
	return sameNode - 2
}

// lab runs the lab's program and returns what it printed.
func lab(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../../bin/lab", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("lab %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	return lab(t, append([]string{"kubectl"}, args...)...)
}

// apply creates what a manifest says.
func apply(t testing.TB, manifest string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-f", file)
}

// machines lists the nodes.
func machines(t testing.TB) map[string]machine {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
			Status struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	decode(t, kubectl(t, "get", "nodes", "-o", "json"), &list)
	out := map[string]machine{}
	for _, n := range list.Items {
		m := machine{Place: packets.Place{Name: n.Metadata.Name, Path: wire.Path(wire.Namespace(n.Metadata.Name))}}
		for _, a := range n.Status.Addresses {
			if a.Type == "InternalIP" {
				m.Addrs = append(m.Addrs, netip.MustParseAddr(a.Address))
			}
		}
		var subnets struct{ Default []netip.Prefix }
		decode(t, n.Metadata.Annotations["k8s.ovn.org/node-subnets"], &subnets)
		for _, s := range subnets.Default {
			m.Mgmts = append(m.Mgmts, s.Addr().Next().Next())
		}
		m.Addr, m.Mgmt = m.Addrs[0], m.Mgmts[0]
		out[m.Name] = m
	}
	return out
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %.200q", err, text)
	}
}

// podManifest is one pod that does nothing, on a node.
func podManifest(name, node string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: suite}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers:
  - {name: pause, image: registry.k8s.io/pause:3.10.1}
`, name, namespace, node)
}

// fresh empties the suite's namespace, before and after the test.
func fresh(t testing.TB) {
	t.Helper()
	kubectl(t, "delete", "namespace", namespace, "--ignore-not-found", "--wait=true", "--timeout=100s")
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() {
		kubectl(t, "delete", "namespace", namespace, "--ignore-not-found", "--wait=true", "--timeout=100s")
	})
}

// ready waits for the namespace's pods and finds where each of them lives.
func ready(t testing.TB) map[string]pod {
	t.Helper()
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s")
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				NodeName    string
				HostNetwork bool
			}
			Status struct{ PodIPs []struct{ IP netip.Addr } }
		}
	}
	decode(t, kubectl(t, "-n", namespace, "get", "pods", "-o", "json"), &list)
	out, want := map[string]pod{}, families(t)
	for _, p := range list.Items {
		if p.Spec.HostNetwork {
			continue
		}
		var addrs []netip.Addr
		var have []packets.Family
		for _, ip := range p.Status.PodIPs {
			addrs, have = append(addrs, ip.IP), append(have, packets.FamilyOf(ip.IP))
		}
		if !slices.Equal(have, want) {
			t.Fatalf("pod %s: kubelet says its addresses are %v, want one each of %v, in this order", p.Metadata.Name, addrs, want)
		}
		out[p.Metadata.Name] = locate(t, p.Metadata.Name, p.Spec.NodeName, addrs)
	}
	return out
}

// locate finds the namespace on the node's disk that has the pod's addresses.
func locate(t testing.TB, name, host string, addrs []netip.Addr) pod {
	t.Helper()
	p, ok := find(pod{Place: packets.Place{Name: name, Addr: addrs[0], Addrs: addrs}, Node: host, Pod: name})
	if !ok {
		t.Fatalf("pod %s: no network namespace of %s has %s", name, host, addrs)
	}
	return p
}

// find looks for a pod where it is now.
func find(p pod) (pod, bool) {
	pid, err := node.InitPID(p.Node)
	if err != nil {
		return p, false
	}
	for _, dir := range []string{"run/netns", "var/run/netns"} {
		found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/%s/*", pid, dir))
		for _, path := range found {
			if p.Path = path; p.lives() {
				return p, true
			}
		}
	}
	return p, false
}

// lives reports whether eth0 of its namespace has the pod's addresses, and notes
// its MAC.
func (p *pod) lives() bool {
	err := p.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		have, err := ifi.Addrs()
		if err != nil {
			return err
		}
		found := map[netip.Addr]bool{}
		for _, a := range have {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				found[prefix.Addr()] = true
			}
		}
		for _, a := range p.Addrs {
			if !found[a] {
				return os.ErrNotExist
			}
		}
		p.MAC = ifi.HardwareAddr
		return nil
	})
	return err == nil
}

// serve answers on a place until the test ends.
func serve(t testing.TB, p packets.Place, port int) {
	t.Helper()
	s, err := packets.Serve(p, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
}
