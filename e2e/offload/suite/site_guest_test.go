//go:build guest

package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
	"github.com/portolan-cni/portolan/offload"
)

// binEnv names the directory with Portolan's programs, a share of the guest.
const binEnv = "PORTOLAN_BIN"

// clusterFile is the Cluster file; what it ends with are more fields of the spec.
const clusterFile = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: c}
spec:
  clusterSubnets: [10.244.0.0/16/24]
  serviceSubnets: [10.96.0.0/16]
`

// nodeFile is a node, by its number.
func nodeFile(i int) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Node
metadata:
  name: n%[1]d
  labels: {kubernetes.io/hostname: n%[1]d}
  annotations: {k8s.ovn.org/node-id: "%[2]d", k8s.ovn.org/node-subnets: '{"default":["10.244.%[1]d.0/24"]}',
    k8s.ovn.org/node-chassis-id: chassis-n%[1]d, k8s.ovn.org/node-encap-ips: '["172.30.0.%[2]d"]'}
`, i, i+1)
}

// podFile is a pod of a node. more is what else its metadata have.
func podFile(node int, name, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %[2]s, namespace: default, uid: u-%[2]s%[3]s}\nspec: {nodeName: n%[1]d, containers: [{name: c, image: x}]}\n", node, name, more)
}

// site is a wire with nodes on which portolan-node runs with all daemons. Their
// intent is files: those of the site, and those of each node.
type site struct {
	l      *rig.Lab
	wire   rig.Wire
	bin    string
	more   string // of the Cluster file's spec, a line a field
	intent string // of all nodes: Node objects, pods, networks
}

// newSite makes a site. more are lines of the Cluster file's spec.
func newSite(l *rig.Lab, t *testing.T, more, intent string) *site {
	t.Helper()
	bin := os.Getenv(binEnv)
	if bin == "" {
		t.Fatal(binEnv + " names no directory: make e2e SUITE=offload sets it")
	}
	return &site{l, l.Wire(), bin, more, intent}
}

// agent is a host on which portolan-node runs.
type agent struct {
	rig.OVS
	site *site
	name string // of the node
	kill func() // ends portolan-node as a kill -9 does
}

// host makes a node's host. plug gives it the NIC of the node's address and default
// route; nil: a veth.
func (s *site) host(i int, plug func(h *rig.Host) (device string)) *rig.Host {
	h := s.l.Host(fmt.Sprintf("n%d", i), s.bin)
	addr := fmt.Sprintf("172.30.0.%d/24", i+1)
	if plug == nil {
		s.wire.Plug(h, "eth0", addr)
	} else {
		h.Run("ip", "addr", "add", addr, "dev", plug(h))
	}
	h.Run("ip", "route", "replace", "default", "via", "172.30.0.1")
	return h
}

// machine makes a node whose network is the guest's own, for PCI NICs.
func (s *site) machine(i int) *rig.Host {
	h := s.l.Machine(fmt.Sprintf("n%d", i), s.bin)
	s.wire.Plug(h, "up0", fmt.Sprintf("172.30.0.%d/24", i+1))
	h.Run("ip", "route", "replace", "default", "via", "172.30.0.1")
	return h
}

// start starts a node's daemons and agent as the pods of deploy/ do. settings are of
// Open_vSwitch's one row, from the start.
func (s *site) start(t *testing.T, h *rig.Host, settings ...string) *agent {
	t.Helper()
	h.PrepareOVS()
	h.Write("etc/portolan/cluster.yaml", clusterFile+s.more)
	h.Write("var/lib/portolan/system-id", "chassis-"+h.Name+"\n")
	h.Write("intent/all.yaml", s.intent)
	a := &agent{OVS: rig.OVS{Host: h}, site: s, name: h.Name}
	for _, d := range []string{"ovsdb-server-ovs", "ovsdb-server-nb", "ovsdb-server-sb"} {
		h.Start(d, s.bin+"/portolan-node", "daemon", d)
	}
	for _, socket := range []string{"openvswitch/db.sock", "ovn/ovnnb_db.sock", "ovn/ovnsb_db.sock"} {
		rig.Wait(t, "socket "+socket, func() error { _, err := os.Stat(h.Path("run/" + socket)); return err })
	}
	if len(settings) > 0 {
		a.Vsctl(append([]string{"--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."}, settings...)...)
	}
	for _, d := range []string{"vswitchd", "northd", "ovn-controller"} {
		h.Start(d, s.bin+"/portolan-node", "daemon", d)
	}
	a.run()
	a.ready(t)
	return a
}

// run starts the agent; after kill, again.
func (a *agent) run() {
	// A socket that a killed agent has left is not the new one's.
	a.Run("rm", "-f", "/run/portolan/cni.sock", "/run/portolan/inspect.sock")
	a.kill = a.Start("agent", a.site.bin+"/portolan-node", "--node-name="+a.name, "--intent-dir=/intent", "--cni-binary="+a.site.bin+"/portolan-cni", "--health-bind=")
}

// ready waits until the agent takes calls.
func (a *agent) ready(t *testing.T) {
	t.Helper()
	rig.Wait(t, "the agent of "+a.name+" ready", func() error {
		if _, err := os.Stat(a.Path("etc/cni/net.d/10-portolan.conflist")); err != nil {
			return err
		}
		_, err := os.Stat(a.Path("run/portolan/cni.sock"))
		return err
	})
}

// call is a call of portolan-cni.
type call struct {
	command string // ADD, DEL, CHECK
	pod     string // of namespace default; its network namespace has its name
	ifname  string // "": eth0
	config  string // JSON; "": the default network's
}

// ownConfig is the network configuration that Portolan installs.
const ownConfig = `{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`

// cni calls portolan-cni as a runtime does. It gives the answer, or the error that a
// runtime shows.
func (a *agent) cni(c call) (string, error) {
	if c.config == "" {
		c.config = ownConfig
	}
	if c.ifname == "" {
		c.ifname = "eth0"
	}
	return a.Try("env", "CNI_COMMAND="+c.command, "CNI_CONTAINERID=c-"+c.pod, "CNI_NETNS=/run/netns/"+c.pod, "CNI_IFNAME="+c.ifname, "CNI_PATH="+a.site.bin,
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+c.pod+";K8S_POD_UID=u-"+c.pod,
		"sh", "-c", `printf %s "$1" | `+a.site.bin+"/portolan-cni", "sh", c.config)
}

// add makes a pod's network namespace, and attaches it to the default network.
func (a *agent) add(t *testing.T, name string) *rig.Pod {
	t.Helper()
	a.netns(name)
	return a.attach(t, call{pod: name})
}

// netns makes a pod's network namespace.
func (a *agent) netns(name string) {
	a.Run("ip", "netns", "add", name)
	a.Run("ip", "-n", name, "link", "set", "lo", "up")
}

// attach calls ADD until it is answered with an address.
func (a *agent) attach(t *testing.T, c call) *rig.Pod {
	t.Helper()
	c.command = "ADD"
	var said string
	rig.Wait(t, "ADD of "+c.pod, func() (err error) {
		said, err = a.cni(c)
		return err
	})
	var result struct {
		IPs []struct{ Address string } `json:"ips"`
	}
	if err := json.Unmarshal([]byte(said), &result); err != nil || len(result.IPs) == 0 {
		t.Fatalf("ADD of %s: %v: %s", c.pod, err, said)
	}
	return rig.PodAt(a.Host, c.pod, result.IPs[0].Address)
}

// del calls DEL, which must succeed.
func (a *agent) del(t *testing.T, c call) {
	t.Helper()
	c.command = "DEL"
	if said, err := a.cni(c); err != nil {
		t.Errorf("DEL of %s: %v %s", c.pod, err, said)
	}
}

// port is the port of Open vSwitch that a logical port is at.
func (a *agent) port(t *testing.T, logical string) string {
	t.Helper()
	name := a.Vsctl("--bare", "--columns=name", "find", "Interface", "external_ids:iface-id="+logical)
	if name == "" {
		t.Fatalf("%s: no port has iface-id %s", a.name, logical)
	}
	return name
}

// told is what portolan offload says of a pod's interface, after two seconds of
// packets: its report, and the text as people see it.
func (a *agent) told(t *testing.T, pod, ifname string) (offload.InterfaceReport, string) {
	t.Helper()
	text := a.Run(a.site.bin+"/portolan", "offload", "default/"+pod, "--for", "2s", "--detail", "-o", "json")
	var list []struct{ offload.Report }
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		t.Fatalf("portolan offload: %v: %s", err, text)
	}
	for _, i := range list[0].Interfaces {
		if i.Interface == ifname {
			return i, a.Run(a.site.bin+"/portolan", "offload", "default/"+pod)
		}
	}
	t.Fatalf("portolan offload has no %s of %s: %s", ifname, pod, text)
	return offload.InterfaceReport{}, ""
}

// tells waits until portolan offload's verdict on a pod's interface is as wanted, with
// all these reasons.
func (a *agent) tells(t *testing.T, pod, ifname string, verdict offload.Verdict, reasons ...offload.Code) {
	t.Helper()
	var text string
	rig.Wait(t, fmt.Sprintf("portolan offload of %s: %s %v", pod, verdict, reasons), func() error {
		var i offload.InterfaceReport
		i, text = a.told(t, pod, ifname)
		codes := map[offload.Code]bool{}
		for _, r := range i.Reasons {
			codes[r.Code] = true
		}
		for _, r := range reasons {
			if !codes[r] {
				return fmt.Errorf("no reason %s: %+v\n%s", r, i, text)
			}
		}
		if i.Verdict != verdict {
			return fmt.Errorf("the verdict is %s: %+v\n%s", i.Verdict, i, text)
		}
		return nil
	})
	t.Logf("portolan offload default/%s:\n%s", pod, strings.TrimSpace(text))
}

// complains waits until portolan problems has a text.
func (a *agent) complains(t *testing.T, want string) {
	t.Helper()
	rig.Wait(t, "portolan problems with "+want, func() error {
		text, err := a.Try(a.site.bin+"/portolan", "problems") // an agent that has just started is not there yet
		if err != nil || !strings.Contains(text, want) {
			return fmt.Errorf("portolan problems: %v: %s", err, text)
		}
		return nil
	})
}
