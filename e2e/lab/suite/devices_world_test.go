package suite

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// suiteResource is what the suite's pool offers, and suiteVariable where containers find
// which of it they were given.
const (
	suiteResource = "portolan.io/suite"
	suiteVariable = "PCIDEVICE_PORTOLAN_IO_SUITE"
)

// softPool is a pool of soft devices on some nodes.
func softPool(count int, hosts ...string) string {
	return fmt.Sprintf(`---
apiVersion: portolan.io/v1alpha1
kind: DevicePool
metadata: {name: suite}
spec:
  resourceName: %s
  kind: soft
  soft: {count: %d}
  nodeSelector:
    matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]
`, suiteResource, count, strings.Join(hosts, ", "))
}

// offering makes the suite's pool, and waits until the kubelets have its devices; when the
// test ends it is deleted, and no node may have anything of it.
func offering(t *testing.T, count int, hosts ...string) {
	t.Helper()
	t.Cleanup(func() {
		kubectl(t, "-n", namespace, "delete", "pods", "--all", "--wait=true", "--timeout=100s")
		kubectl(t, "delete", "devicepool", "suite", "--ignore-not-found", "--wait=true", "--timeout=60s")
		for _, h := range hosts {
			err := inTime(60*time.Second, func() error {
				if n := allocatable(t, h, suiteResource); len(softLinks(t, h)) > 0 || n != "" && n != "0" {
					return fmt.Errorf("the pool is deleted, and the kubelet has %s devices; links %v", n, softLinks(t, h))
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", h, err)
			}
		}
	})
	apply(t, softPool(count, hosts...))
	for _, h := range hosts {
		offered(t, h, count)
	}
	if text, err := command(t, "kubectl", "wait", "--for=condition=Ready", "devicepool/suite", "--timeout=60s"); err != nil {
		t.Error(text)
	}
}

// offered waits until a node's kubelet has this many devices of the suite's to give.
func offered(t *testing.T, host string, count int) {
	t.Helper()
	err := inTime(60*time.Second, func() error {
		if n := allocatable(t, host, suiteResource); n != fmt.Sprint(count) {
			return fmt.Errorf("the kubelet of %s has %q of %s, want %d; the pool there: %+v", host, n, suiteResource, count, poolOn(t, host))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// allocatable is how much of a resource a node's kubelet has for pods; "": it knows none.
func allocatable(t *testing.T, host, resource string) string {
	t.Helper()
	return kubectl(t, "get", "node", host, "-o", "jsonpath={.status.allocatable."+strings.ReplaceAll(resource, ".", `\.`)+"}")
}

// poolState is what a node says of the suite's pool.
type poolState struct {
	Ready                bool
	Reason, Message      string
	Devices, Well, InUse int
}

func poolOn(t *testing.T, host string) poolState {
	t.Helper()
	var n struct {
		Status struct {
			DevicePools []struct {
				Name string
				poolState
			}
		}
	}
	text := kubectl(t, "get", "nodenetwork", host, "--ignore-not-found", "-o", "json")
	if text == "" { // an agent that has just begun
		return poolState{}
	}
	decode(t, text, &n)
	for _, p := range n.Status.DevicePools {
		if p.Name == "suite" {
			return p.poolState
		}
	}
	return poolState{}
}

// atHome waits until this many functions are in a node's own namespace: those that no pod
// has.
func atHome(t *testing.T, host string, want int) {
	t.Helper()
	err := inTime(60*time.Second, func() error {
		n := 0
		for name := range softLinks(t, host) {
			if strings.HasPrefix(name, "sv-") {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d functions are in the namespace of %s, want %d", n, host, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// inUse waits until pods have this many devices of a node, by its own word, which may be
// a minute old: the kubelet tells nobody that a pod has gone.
func inUse(t *testing.T, host string, want int) {
	t.Helper()
	err := inTime(2*time.Minute, func() error {
		if s := poolOn(t, host); s.InUse != want {
			return fmt.Errorf("%s says %+v, want %d in use", host, s, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// softLink is what is to be of an end of a soft device again when no pod has it.
type softLink struct {
	MAC     string `json:"address"`
	MTU     int    `json:"mtu"`
	Alias   string `json:"ifalias"`
	Group   string `json:"group"`
	Up      bool   `json:"-"`
	Flags   []string
	Ifname  string
	Promisc int `json:"promiscuity"`
}

// softLinks are the ends of soft devices that are in a node's own namespace, as they are.
func softLinks(t *testing.T, host string) map[string]string {
	t.Helper()
	var list []softLink
	decode(t, lab(t, "exec", host, "--", "ip", "-j", "-d", "link", "show"), &list)
	out := map[string]string{}
	for _, l := range list {
		if strings.HasPrefix(l.Ifname, "sv-") || strings.HasPrefix(l.Ifname, "sr-") {
			l.Up = slices.Contains(l.Flags, "UP")
			mac := l.MAC
			if strings.HasPrefix(l.Ifname, "sr-") {
				mac = "its own" // a pair that went with its sandbox is made again: nobody sees this end's
			}
			out[l.Ifname] = fmt.Sprintf("MAC %s, MTU %d, alias %q, group %s, up %v, promiscuous %d", mac, l.MTU, l.Alias, l.Group, l.Up, l.Promisc)
		}
	}
	return out
}

// asAtFirst waits until a node's soft devices are what they were.
func asAtFirst(t *testing.T, host string, first map[string]string) {
	t.Helper()
	err := inTime(60*time.Second, func() error {
		now := softLinks(t, host)
		for name, was := range first {
			if now[name] != was {
				return fmt.Errorf("%s of %s is %q, was %q", name, host, now[name], was)
			}
		}
		if len(now) != len(first) {
			return fmt.Errorf("%s has %d ends of soft devices, had %d: %v", host, len(now), len(first), now)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// deviceDefinition is a network whose interfaces are devices of a resource.
func deviceDefinition(name, resource, config string) string {
	return strings.Replace(definition(name, config), fmt.Sprintf("namespace: %s}", namespace),
		fmt.Sprintf("namespace: %s, annotations: {k8s.v1.cni.cncf.io/resourceName: %s}}", namespace, resource), 1)
}

// devicePod is a pod that requests devices of a resource; the scheduler, which counts
// them, puts it on the node.
func devicePod(name, host, networks, resource string, count int) string {
	text := strings.Replace(attachedPod(name, host, networks), "nodeName: "+host, "nodeSelector: {kubernetes.io/hostname: "+host+"}", 1)
	return strings.Replace(text, "image: registry.k8s.io/pause:3.10.1}", fmt.Sprintf("image: registry.k8s.io/pause:3.10.1, resources: {limits: {%s: %d}}}", resource, count), 1)
}

// allocatedTo are the devices that a pod's container was given of a resource, by its
// environment, sorted.
func allocatedTo(t *testing.T, p pod, variable string) []string {
	t.Helper()
	home, err := os.Stat(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := node.Processes(p.Node)
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range list {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", process.PID))
		if err != nil || !os.SameFile(info, home) {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", process.PID))
		if err != nil {
			continue
		}
		for _, v := range strings.Split(string(b), "\x00") {
			if ids, ok := strings.CutPrefix(v, variable+"="); ok {
				return slices.Sorted(slices.Values(strings.Split(ids, ",")))
			}
		}
	}
	t.Errorf("no container of pod %s has %s in its environment", p.Pod, variable)
	return nil
}

// devicePort is the port of a representor in br-int.
type devicePort struct{ Device, MAC, Sandbox, Pod string }

// devicePorts are a node's ports of soft devices, by the MAC of their interface.
func devicePorts(t *testing.T, host string) map[string]devicePort {
	t.Helper()
	var table struct {
		Data [][2]json.RawMessage
	}
	decode(t, lab(t, "vsctl", host, "--format=json", "--columns=name,external_ids", "list", "Interface"), &table)
	out := map[string]devicePort{}
	for _, row := range table.Data {
		var name string
		var ids [2]json.RawMessage
		decode(t, string(row[0]), &name)
		label, ok := strings.CutPrefix(name, "sr-")
		if !ok {
			continue
		}
		decode(t, string(row[1]), &ids)
		var pairs [][2]string
		decode(t, string(ids[1]), &pairs)
		p := devicePort{Device: "soft-" + label}
		for _, kv := range pairs {
			switch kv[0] {
			case "attached_mac":
				p.MAC = kv[1]
			case "sandbox":
				p.Sandbox = kv[1]
			case "iface-id":
				p.Pod = kv[1]
			}
		}
		if other, twice := out[p.MAC]; twice {
			t.Errorf("%s: %s is of both %s and %s", host, p.MAC, other.Device, p.Device)
		}
		out[p.MAC] = p
	}
	return out
}

// interfaceDevices are the devices behind a pod's interfaces, in their order, as br-int
// has them; "" where an interface is none. The end in the pod must have the MAC.
func interfaceDevices(t *testing.T, p netPod) []string {
	t.Helper()
	ports := devicePorts(t, p.Node)
	var out []string
	for _, s := range p.Interfaces {
		err := p.Do(func() error {
			i, err := net.InterfaceByName(s.Interface)
			if err == nil && i.HardwareAddr.String() != s.MAC {
				err = fmt.Errorf("%s has %s, and network-status says %s", s.Interface, i.HardwareAddr, s.MAC)
			}
			return err
		})
		if err != nil {
			t.Errorf("pod %s: %v", p.Pod, err)
		}
		out = append(out, ports[s.MAC].Device)
	}
	return out
}

// ordered are a pod's devices as they are to be compared with those that it was given, sorted:
// Multus takes them in the order in which the kubelet lists them, which is any.
func ordered(t *testing.T, ids []string) []string {
	t.Helper()
	if layout(t).Multus != "" {
		return slices.Sorted(slices.Values(ids))
	}
	return ids
}

// hole is longer than what a busy machine makes by itself, where a socket of vswitchd's
// overflows now and then (the fault suite counts beside a bare bridge).
const hole = 200 * time.Millisecond

// unlost sends packets from one place to another while something is done, which must make
// no hole in them.
func unlost(t *testing.T, from, to packets.Place, do func()) {
	t.Helper()
	flow, err := packets.StartFlow(from.In(packets.IPv4), to.In(packets.IPv4), 100)
	if err != nil {
		t.Fatal(err)
	}
	do()
	if steady := flow.Stop(); steady.Gap > hole || steady.Sent == 0 {
		t.Errorf("packets meanwhile: %s", steady)
	}
}
