package tour

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// machine is a node of the cluster.
type machine struct {
	packets.Place
	ready bool
	mgmt  netip.Addr // of ovn-k8s-mp0: the node's address in its own subnet
}

// pod is a pod of the demo, and what Kubernetes says of it.
type pod struct {
	packets.Place
	node     string
	ready    bool
	restarts int
	networks string // its network-status, as it is written
}

// parseNodes reads `kubectl get nodes -o json`. Nodes have the order of the list,
// which is that of their names.
func parseNodes(text string) ([]machine, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
			Status struct {
				Addresses  []struct{ Type, Address string }
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("list of nodes: %w", err)
	}
	var out []machine
	for _, n := range list.Items {
		m := machine{Place: packets.Place{Name: n.Metadata.Name, Path: wire.Path(wire.Namespace(n.Metadata.Name))}}
		for _, c := range n.Status.Conditions {
			m.ready = m.ready || c.Type == "Ready" && c.Status == "True"
		}
		for _, a := range n.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" && !m.Addr.IsValid() {
				m.Addr = addr
			}
		}
		var subnets struct{ Default []netip.Prefix }
		annotation := n.Metadata.Annotations["k8s.ovn.org/node-subnets"]
		if err := json.Unmarshal([]byte(annotation), &subnets); err != nil || len(subnets.Default) == 0 {
			return nil, fmt.Errorf("node %s: no subnet in its annotation %q: is Portolan the lab's network?", m.Name, annotation)
		}
		m.mgmt = subnets.Default[0].Masked().Addr().Next().Next()
		out = append(out, m)
	}
	return out, nil
}

// parsePods reads `kubectl get pods -o json`.
func parsePods(text string) ([]pod, error) {
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
			Spec   struct{ NodeName string }
			Status struct {
				PodIP             string
				ContainerStatuses []struct {
					Ready        bool
					RestartCount int
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("list of pods: %w", err)
	}
	var out []pod
	for _, i := range list.Items {
		addr, err := netip.ParseAddr(i.Status.PodIP)
		if err != nil {
			return nil, fmt.Errorf("pod %s has no address yet: %w", i.Metadata.Name, err)
		}
		p := pod{Place: packets.Place{Name: i.Metadata.Name, Addr: addr}, node: i.Spec.NodeName, ready: len(i.Status.ContainerStatuses) > 0,
			networks: i.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]}
		for _, c := range i.Status.ContainerStatuses {
			p.ready = p.ready && c.Ready
			p.restarts += c.RestartCount
		}
		out = append(out, p)
	}
	return out, nil
}

// locate finds the pod's network namespace among those of its node.
func (p *pod) locate() error {
	pid, err := node.InitPID(p.node)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/run/netns/*", pid))
	if err != nil {
		return err
	}
	for _, path := range paths {
		place := packets.Place{Name: p.Name, Path: path, Addr: p.Addr}
		if place.Do(func() error { return hasAddress(p.Addr) }) == nil {
			p.Place = place
			return nil
		}
	}
	return fmt.Errorf("pod %s: none of the %d network namespaces on %s has %s", p.Name, len(paths), p.node, p.Addr)
}

// hasAddress looks at the interfaces of the namespace that its thread is in.
func hasAddress(want netip.Addr) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == want {
			return nil
		}
	}
	return fmt.Errorf("no interface has %s", want)
}

// byName finds a pod in a list.
func byName(pods []pod, name string) (pod, error) {
	for _, p := range pods {
		if p.Name == name {
			return p, nil
		}
	}
	return pod{}, fmt.Errorf("there is no pod %s in the demo", name)
}
