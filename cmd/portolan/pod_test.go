package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/inspect"
)

// noon is when the tests' pods are looked at; ago is some time before.
func noon() time.Time { return time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) }

func ago(d time.Duration) *time.Time {
	t := noon().Add(-d)
	return &t
}

// theAPIServers is a pod as the API server has it.
func theAPIServers(t *testing.T, annotations map[string]string) *podObject {
	t.Helper()
	p := &podObject{}
	p.Metadata.Namespace, p.Metadata.Name, p.Metadata.UID, p.Metadata.Annotations = "demo", "multi", "u", annotations
	p.Spec.NodeName, p.Status.Phase = "node1", "Pending"
	p.Status.Conditions = []podCondition{{Type: "PodScheduled", Status: "True", LastTransitionTime: ago(3 * time.Minute)}}
	return p
}

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

// whole is an interface that is through.
func whole(attachment, name string) inspect.PodInterface {
	return inspect.PodInterface{
		Attachment: attachment, Interface: name, Planned: true, Network: "blue", Topology: "layer2", Addresses: []string{"10.9.0.5/16"}, MAC: "0a:58:0a:09:00:05",
		MTU: 1342, TunnelKey: 5, Bandwidth: &inspect.Bandwidth{Ingress: 10e6}, LogicalPort: "demo.blue_demo_multi", Switch: "blue_ovn_layer2_switch",
		Row: true, Written: yes(), Port: "abc_net1", OFPort: 7, Sandbox: "s1",
		Allocated: ago(3 * time.Minute), Prepared: ago(3 * time.Minute), Installed: ago(2 * time.Minute), Attached: ago(2 * time.Minute),
	}
}

const asks = "blue,late"

func concluded(t *testing.T, p *podObject, agent inspect.Pod) podReport {
	t.Helper()
	f := podFinder{report: podReport{Pod: "demo/multi", Interfaces: []interfaceReport{}, Reasons: []string{}}, object: p, agent: agent, known: true, now: noon()}
	if f.elsewhere() {
		f.known = false
	}
	f.conclude()
	return f.report
}

func TestWhyAPodDoesNotTalk(t *testing.T) {
	network := map[string]string{multus.NetworksAnnotation: asks}
	broken := func(change func(*inspect.PodInterface)) inspect.Pod {
		i := whole("demo/blue", "net1")
		change(&i)
		return inspect.Pod{Interfaces: []inspect.PodInterface{i}}
	}
	for _, c := range []struct {
		name   string
		object func(*podObject)
		agent  inspect.Pod
		why    string // "": nothing
	}{
		{"nothing is wrong", nil, broken(func(*inspect.PodInterface) {}), ""},
		{"no node", func(p *podObject) {
			p.Spec.NodeName, p.Status.Conditions = "", []podCondition{{Type: "PodScheduled", Status: "False", Message: "0/3 nodes are available"}}
		}, inspect.Pod{}, "the scheduler has not chosen a node: 0/3 nodes are available"},
		{"it has ended", func(p *podObject) { p.Status.Phase = "Succeeded" }, inspect.Pod{}, "it has ended (Succeeded)"},
		{"a definition is missing", nil, broken(func(i *inspect.PodInterface) {
			*i = inspect.PodInterface{Attachment: "demo/late", Interface: "net2", Planned: true, Pending: true, Waits: "NetworkAttachmentDefinition demo/late does not exist: create it"}
		}), "net2 (demo/late) is not allocated: NetworkAttachmentDefinition demo/late does not exist: create it"},
		{"the border", nil, broken(func(i *inspect.PodInterface) {
			*i = inspect.PodInterface{Attachment: "x/theirs", Interface: "net2", Planned: true, Waits: "network theirs does not admit namespace demo"}
		}), "net2 (x/theirs) is not allocated: network theirs does not admit namespace demo"},
		{"no address is left", nil, func() inspect.Pod {
			p := broken(func(i *inspect.PodInterface) { i.MAC, i.Addresses, i.Port = "", nil, "" })
			p.Call = &inspect.PodCall{Command: "ADD", Stage: "allocate", Began: noon(), Entered: noon(), Ended: ago(time.Second), Error: "no address is left in blue"}
			return p
		}(), "net1 (demo/blue) is not allocated: no address is left in blue"},
		{"its row waits", nil, func() inspect.Pod {
			p := broken(func(i *inspect.PodInterface) { i.Written = no() })
			p.Waiting = []inspect.Group{{Name: "pod/demo/multi", Database: "NB", Waiting: []string{"NB:Logical_Switch(blue_ovn_layer2_switch)"}, Age: 7}}
			return p
		}(), "net1 (demo/blue) is not written: waiting for NB:Logical_Switch(blue_ovn_layer2_switch), for 7s"},
		{"no unit makes a port", nil, func() inspect.Pod {
			p := broken(func(i *inspect.PodInterface) { i.Row, i.Written = false, no() })
			p.Problems = []inspect.Problem{{Object: "Network/blue", Field: "spec.subnets", Severity: "error", Message: "subnet 10.9.0.0/16 is a part of the services'"}}
			return p
		}(), "net1 (demo/blue) is not written: subnet 10.9.0.0/16 is a part of the services'"},
		{"it is not installed", nil, broken(func(i *inspect.PodInterface) { i.Missing = "ovn-controller has not installed the port's flows" }),
			"net1 (demo/blue) is not installed: ovn-controller has not installed the port's flows (port abc_net1)"},
		{"one waits for another's definition", nil, func() inspect.Pod {
			p := broken(func(i *inspect.PodInterface) { i.Port = "" })
			p.Interfaces = append(p.Interfaces, inspect.PodInterface{Attachment: "demo/late", Interface: "net2", Planned: true, Pending: true, Waits: "waiting for NetworkAttachmentDefinition demo/late"})
			p.Call = &inspect.PodCall{Command: "ADD", Stage: "wait-network", Began: *ago(20 * time.Second), Entered: *ago(12 * time.Second)}
			return p
		}(), "net2 (demo/late) is not allocated: waiting for NetworkAttachmentDefinition demo/late"},
		{"an ADD is at work", nil, func() inspect.Pod {
			p := broken(func(i *inspect.PodInterface) { i.Port = "" })
			p.Call = &inspect.PodCall{Command: "ADD", Stage: "wait-network", Began: *ago(20 * time.Second), Entered: *ago(12 * time.Second)}
			return p
		}(), "net1 (demo/blue) is not attached: ADD is in stage wait-network for 12s"},
		{"nobody has asked", nil, broken(func(i *inspect.PodInterface) { i.Port = "" }), "net1 (demo/blue) is not attached: the runtime has not asked for it"},
		{"its annotation", nil, inspect.Pod{Refused: "networks is \"?\"", Interfaces: []inspect.PodInterface{}}, "its annotation cannot be read: networks is"},
	} {
		p := theAPIServers(t, network)
		if c.object != nil {
			c.object(p)
		}
		r := concluded(t, p, c.agent)
		switch {
		case c.why == "" && len(r.Reasons) > 0, c.why != "" && (len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0], c.why)):
			t.Errorf("%s: found %q, wanted %q", c.name, r.Reasons, c.why)
		}
	}
}

func TestPodForPeople(t *testing.T) {
	status := `[{"name":"default","interface":"eth0","ips":["10.244.1.5"],"mac":"0a:58:0a:f4:01:05","default":true,"dns":{}},
		{"name":"demo/blue","interface":"net1","ips":["10.9.0.5"],"mac":"0a:58:0a:09:00:05","dns":{}},
		{"name":"demo/bridge","interface":"net2","ips":["192.0.2.7"],"mac":"02:00:00:00:00:01","dns":{}}]`
	home := whole("default", "eth0")
	home.Network, home.Topology, home.Bandwidth, home.TunnelKey, home.LogicalPort, home.Switch = "default", "layer3", nil, 0, "demo_multi", "node1"
	p := theAPIServers(t, map[string]string{multus.NetworksAnnotation: "blue,bridge", multus.StatusAnnotation: status})
	p.Status.Phase = "Running"
	p.Status.Conditions = append(p.Status.Conditions, podCondition{Type: "Ready", Status: "True"})
	r := concluded(t, p, inspect.Pod{Status: ago(time.Minute), Interfaces: []inspect.PodInterface{home, whole("demo/blue", "net1")}})
	var b strings.Builder
	r.write(&b)
	for _, line := range []string{
		"pod demo/multi on node1, Running\n", "asks for blue,bridge\n",
		"net1       blue         layer2            10.9.0.5/16  0a:58:0a:09:00:05  -        1342  -     in 10M\n",
		"net2       demo/bridge  another plugin's  192.0.2.7    02:00:00:00:00:01  -        -     -     -\n",
		"net1       demo/blue  abc_net1  7       demo.blue_demo_multi  blue_ovn_layer2_switch  5\n",
		"net1       3m     3m         3m        yes      2m         2m        60s\n", "net2       -      -          -         -        -          -         60s\n",
		"nothing keeps it from talking, as far as Portolan knows",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("no %q in\n%s", line, b.String())
		}
	}
}

func TestPodBehindASocket(t *testing.T) {
	socket, _ := agent(t, worldYAML(t))
	out, err := said(t, "pod", "--socket", socket, "demo/web", "-o", "json")
	var r podReport
	if !errors.Is(err, exitCode(1)) || json.Unmarshal([]byte(out), &r) != nil || len(r.Interfaces) != 4 {
		t.Fatalf("%v, found\n%s", err, out)
	}
	blue := r.Interfaces[1]
	if blue.Attachment != "demo/blue" || blue.Network != "blue" || blue.TunnelKey != 5 || blue.Switch != "blue_ovn_layer2_switch" || blue.LogicalPort != "demo.blue_demo_web" || !*blue.Written {
		t.Errorf("found %+v", blue)
	}
	if lan := r.Interfaces[3]; lan.VLAN != 100 || lan.PhysicalNetwork != "wire" {
		t.Errorf("found %+v", lan)
	}
	for _, asked := range []string{"demo/nobody", "web", "/web"} {
		var untold unknownError
		if out, err := said(t, "pod", "--socket", socket, asked); !errors.As(err, &untold) {
			t.Errorf("%s: %v, found\n%s", asked, err, out)
		}
	}
}
