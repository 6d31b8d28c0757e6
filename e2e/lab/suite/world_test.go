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
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// namespace is where the suite makes its pods.
const namespace = "portolan-suite"

// client is the host outside of the cluster.
var client = packets.Place{Name: "client", Path: wire.Path(wire.Namespace("client")), Addr: netip.MustParseAddr("172.18.0.100")}

// apiServer is where the control plane's host process listens.
var apiServer = netip.MustParseAddrPort("172.18.0.3:6443")

// machine is a node of the cluster.
type machine struct {
	packets.Place
	Mgmt netip.Addr // of ovn-k8s-mp0: what pods of other nodes see of it
}

// pod is a pod whose packets the suite sends.
type pod struct {
	packets.Place
	Node string
	Pod  string
	MAC  net.HardwareAddr
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
			if a.Type == "InternalIP" && m.Addr == (netip.Addr{}) {
				m.Addr = netip.MustParseAddr(a.Address)
			}
		}
		var subnets struct{ Default []netip.Prefix }
		decode(t, n.Metadata.Annotations["k8s.ovn.org/node-subnets"], &subnets)
		m.Mgmt = subnets.Default[0].Addr().Next().Next()
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
			Status struct{ PodIP string }
		}
	}
	decode(t, kubectl(t, "-n", namespace, "get", "pods", "-o", "json"), &list)
	out := map[string]pod{}
	for _, p := range list.Items {
		if p.Spec.HostNetwork {
			continue
		}
		addr, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil {
			t.Fatalf("pod %s: %v", p.Metadata.Name, err)
		}
		out[p.Metadata.Name] = locate(t, p.Metadata.Name, p.Spec.NodeName, addr)
	}
	return out
}

// locate finds the namespace on the node's disk that has the pod's address.
func locate(t testing.TB, name, host string, addr netip.Addr) pod {
	t.Helper()
	pid, err := node.InitPID(host)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, dir := range []string{"run/netns", "var/run/netns"} {
		found, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/%s/*", pid, dir))
		paths = append(paths, found...)
	}
	for _, path := range paths {
		p := pod{Place: packets.Place{Name: name, Path: path, Addr: addr}, Node: host, Pod: name}
		if p.has(addr) {
			return p
		}
	}
	t.Fatalf("pod %s: no network namespace of %s has %s (looked at %d)", name, host, addr, len(paths))
	return pod{}
}

// has reports whether eth0 has the address, and notes its MAC.
func (p *pod) has(addr netip.Addr) bool {
	err := p.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == addr {
				p.MAC = ifi.HardwareAddr
				return nil
			}
		}
		return os.ErrNotExist
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
