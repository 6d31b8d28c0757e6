package multus

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	layer2NAD  = `{"cniVersion":"1.0.0","type":"portolan","name":"blue","netAttachDefName":"ns/blue","topology":"layer2","subnets":"10.1.0.0/16","excludeSubnets":"10.1.9.0/24"}`
	claimNAD   = `{"cniVersion":"1.0.0","type":"portolan","name":"vm","netAttachDefName":"ns/vm","topology":"layer2","subnets":"10.2.0.0/16","allowPersistentIPs":true}`
	bridgeNAD  = `{"cniVersion":"1.0.0","name":"br","type":"bridge","capabilities":{"ips":true},"args":{"cni":{"a":1,"b":2},"other":3}}`
	chainNAD   = `{"cniVersion":"1.0.0","name":"chain","plugins":[{"type":"bridge","capabilities":{"ips":true,"mac":true}},{"type":"portmap","capabilities":{"portMappings":true}},{"type":"bandwidth","capabilities":{"bandwidth":true,"mac":true}}]}`
	deviceNAD  = `{"cniVersion":"1.0.0","name":"dev","type":"sriov"}`
	defaultNAD = `{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`
)

func lookup(key string) (Source, bool) {
	s, ok := map[string]Source{
		"ns/blue": {Config: layer2NAD}, "ns/vm": {Config: claimNAD}, "ns/br": {Config: bridgeNAD}, "ns/chain": {Config: chainNAD},
		"ns/dev": {Config: deviceNAD, Resource: "x.io/vf"}, "ns/file": {}, "ns/bad": {Config: "{"}, "kube-system/default": {Config: defaultNAD},
		"kube-system/dev": {Config: deviceNAD, Resource: "x.io/vf"},
	}[key]
	return s, ok
}

// line is an attachment in one line, with what each plugin is given.
func line(a *Attachment) string {
	s := fmt.Sprintf("%s %s %s", a.ID(), a.Network, a.Interface)
	for _, p := range a.Plugins {
		raw, err := json.Marshal(p.RuntimeConfig)
		if err != nil {
			return err.Error()
		}
		s += " " + p.Type + string(raw)
	}
	if a.Device != "" {
		s += " device " + a.Device
	}
	if a.Err != nil {
		s += " ERROR " + a.Err.Error()
	}
	return s
}

func lines(t *testing.T, r Request) string {
	t.Helper()
	r.Namespace, r.Lookup = "ns", lookup
	plan, err := NewPlan(r)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	if plan.Default != nil {
		out = append(out, line(plan.Default))
	}
	for i := range plan.Attachments {
		out = append(out, line(&plan.Attachments[i]))
	}
	return strings.Join(out, "\n")
}

func TestPlans(t *testing.T) {
	for _, c := range []struct{ name, networks, want string }{
		{"attachments are in the order written", "br,blue", "ns/br br net1 bridge{}\nns/blue blue net2 portolan{}"},
		{"one definition twice is told apart by an index", "blue,br,blue@up0", "ns/blue blue net1 portolan{}\nns/br br net2 bridge{}\nns/blue/1 blue up0 portolan{}"},
		{"each plugin is given what it declares", `[{"name":"chain","ips":["10.0.0.1/24"],"mac":"0a:00:00:00:00:01","portMappings":[{"hostPort":80,"containerPort":8080}],"bandwidth":{"egressRate":5}}]`,
			`ns/chain chain net1 bridge{"ips":["10.0.0.1/24"],"mac":"0a:00:00:00:00:01"} portmap{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]} bandwidth{"bandwidth":{"egressRate":5},"mac":"0a:00:00:00:00:01"}`},
		{"ours takes addresses, MAC and bandwidth without declaring them", `[{"name":"blue","ips":["10.1.0.5"],"mac":"0a:00:00:00:00:01","bandwidth":{"ingressRate":7}}]`,
			`ns/blue blue net1 portolan{"bandwidth":{"ingressRate":7},"ips":["10.1.0.5"],"mac":"0a:00:00:00:00:01"}`},
		{"a missing capability fails that attachment", `[{"name":"br","mac":"0a:00:00:00:00:01"},{"name":"blue"}]`,
			`ns/br br net1 ERROR attachment of interface net1 by ns/br: mac is "0a:00:00:00:00:01"; remove it, or declare "mac":true in capabilities of a plugin of ns/br that has it` + "\nns/blue blue net2 portolan{}"},
		{"ports are not mapped by ours", `[{"name":"blue","portMappings":[{"hostPort":80,"containerPort":80}]}]`,
			`ns/blue blue net1 ERROR attachment of interface net1 by ns/blue: portMappings is [{"hostPort":80,"containerPort":80,"protocol":"tcp"}]; remove it, or declare "portMappings":true in capabilities of a plugin of ns/blue that has it`},
		{"an infiniband GUID needs its capability", `[{"name":"br","infiniband-guid":"c2:11:22:33:44:55:66:77"}]`,
			`ns/br br net1 ERROR attachment of interface net1 by ns/br: infinibandGUID is "c2:11:22:33:44:55:66:77"; remove it, or declare "infinibandGUID":true in capabilities of a plugin of ns/br that has it`},
		{"a missing definition is waited for, and the others go on", "nothing,blue",
			"ns/nothing  net1 ERROR waiting for NetworkAttachmentDefinition ns/nothing, which does not exist: create it, or correct the pod's annotation\nns/blue blue net2 portolan{}"},
		{"a definition without a configuration is a file of the node", "file",
			`ns/file file net1 ERROR NetworkAttachmentDefinition ns/file: spec.config: it is empty, and the node has no CNI configuration whose name is "file"; write one, or fill spec.config`},
		{"a definition that is wrong fails its attachment", "bad,blue",
			`ns/bad  net1 ERROR NetworkAttachmentDefinition ns/bad: spec.config: "{" is no JSON object (EOF); write {…}` + "\nns/blue blue net2 portolan{}"},
		{"an interface name that is taken fails the later attachment", "blue@net2,br,blue@up0",
			"ns/blue blue net2 portolan{}\nns/br br net2 bridge{} ERROR annotation k8s.v1.cni.cncf.io/networks, entry 1: interface is \"net2\"; give it another name: entry 0 has that one\nns/blue/1 blue up0 portolan{}"},
		{"the default network's interface is taken", "blue@eth0",
			`ns/blue blue eth0 portolan{} ERROR annotation k8s.v1.cni.cncf.io/networks, entry 0: interface is "eth0"; give it another name: the default network has that one`},
		{"so is the loopback", "blue@lo",
			`ns/blue blue lo portolan{} ERROR annotation k8s.v1.cni.cncf.io/networks, entry 0: interface is "lo"; give it another name: the loopback has that one`},
		{"an address outside the network fails its attachment", `[{"name":"blue","ips":["10.7.0.5"]}]`,
			`ns/blue blue net1 ERROR attachment of interface net1 by ns/blue: ips is "10.7.0.5"; ask for an address of 10.1.0.0/16, the subnets of network blue`},
		{"an address that is excluded fails its attachment", `[{"name":"blue","ips":["10.1.9.5/16"]}]`,
			`ns/blue blue net1 ERROR attachment of interface net1 by ns/blue: ips is "10.1.9.5/16"; ask for another: network blue excludes 10.1.9.0/24`},
		{"a claim where addresses persist", `[{"name":"vm","ipam-claim-reference":"a"}]`, "ns/vm vm net1 portolan{}"},
		{"a claim where they do not", `[{"name":"blue","ipam-claim-reference":"a"}]`,
			`ns/blue blue net1 ERROR attachment of interface net1 by ns/blue: ipam-claim-reference is "a"; remove it, or set allowPersistentIPs in ns/blue`},
		{"a claim on another plugin's network", `[{"name":"br","ipam-claim-reference":"a"}]`,
			`ns/br br net1 ERROR attachment of interface net1 by ns/br: ipam-claim-reference is "a"; remove it: ns/br is no network whose addresses Portolan gives`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lines(t, Request{Networks: c.networks}); got != c.want {
				t.Fatalf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestTheDefaultNetworkIsFirstAndUsesUpDevicesFirst(t *testing.T) {
	got := lines(t, Request{Networks: "dev,kube-system/dev,dev", Default: "dev", DefaultNamespace: "kube-system", Devices: map[string][]string{"x.io/vf": {"c", "b", "a"}}})
	want := "kube-system/dev dev eth0 sriov{} device a\nns/dev dev net1 sriov{} device b\nkube-system/dev/1 dev net2 sriov{} device c\nns/dev/1 dev net3 sriov{}"
	if got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

func TestADeviceOfTheResourceIsBeforeTheOneAskedFor(t *testing.T) {
	networks := `[{"name":"dev","deviceID":"z"},{"name":"dev","deviceID":"y"}]`
	plan, err := NewPlan(Request{Namespace: "ns", Lookup: lookup, Networks: networks, Devices: map[string][]string{"x.io/vf": {"a"}}})
	if err != nil || plan.Attachments[0].Device != "a" || plan.Attachments[1].Device != "y" {
		t.Fatalf("%+v, %v", plan, err)
	}
	if got, want := string(plan.Attachments[0].List), `{"cniVersion":"1.0.0","name":"dev","plugins":[{"cniVersion":"1.0.0","deviceID":"a","name":"dev","pciBusID":"a","type":"sriov"}]}`; got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestAPodsArgumentsWinOverTheDefinitions(t *testing.T) {
	plan, err := NewPlan(Request{Namespace: "ns", Lookup: lookup, Networks: `[{"name":"br","cni-args":{"b":"pod","c":[]}},{"name":"blue","cni-args":{"x":1}}]`})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`{"cniVersion":"1.0.0","name":"br","plugins":[{"args":{"cni":{"a":1,"b":"pod","c":[]},"other":3},"capabilities":{"ips":true},"cniVersion":"1.0.0","name":"br","type":"bridge"}]}`,
		`{"cniVersion":"1.0.0","name":"blue","plugins":[{"args":{"cni":{"x":1}},"cniVersion":"1.0.0","excludeSubnets":"10.1.9.0/24","name":"blue","netAttachDefName":"ns/blue","subnets":"10.1.0.0/16","topology":"layer2","type":"portolan"}]}`,
	} {
		if got := string(plan.Attachments[i].List); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestAPodWaitsForWhatIsMissingOnly(t *testing.T) {
	plan, err := NewPlan(Request{Namespace: "ns", Lookup: lookup, Networks: "nothing,bad,blue"})
	if err != nil || !Waits(plan.Attachments[0].Err) || Waits(plan.Attachments[1].Err) || Waits(plan.Attachments[2].Err) {
		t.Fatalf("%+v, %v", plan, err)
	}
}

func TestOneWrongValueMakesTheAnnotationWrong(t *testing.T) {
	for _, r := range []Request{{Networks: "blue,X"}, {Default: "X"}, {Default: "a,b"}} {
		r.Namespace, r.Lookup = "ns", lookup
		plan, err := NewPlan(r)
		var e *FieldError
		if plan != nil || !errors.As(err, &e) {
			t.Errorf("%+v: %+v, %v", r, plan, err)
		}
	}
}

func FuzzNewPlan(f *testing.F) {
	f.Add("a,a@net1,b", layer2NAD)
	f.Add(one(`"cni-args":{"a":1},"deviceID":"x","ips":["10.1.0.1"]`), bridgeNAD)
	f.Fuzz(func(t *testing.T, networks, config string) {
		plan, err := NewPlan(Request{Namespace: "ns", Networks: networks, Lookup: func(string) (Source, bool) { return Source{Config: config, Resource: "r"}, true },
			Devices: map[string][]string{"r": {"a", "b"}}})
		if err != nil {
			return
		}
		names, ids := map[string]bool{}, map[string]bool{}
		for _, a := range plan.Attachments {
			if ids[a.ID()] {
				t.Fatalf("%s twice", a.ID())
			}
			ids[a.ID()] = true
			if a.Err != nil {
				continue
			}
			if names[a.Interface] || len(a.Plugins) == 0 || !json.Valid(a.List) {
				t.Fatalf("attachment %+v", a)
			}
			names[a.Interface] = true
		}
	})
}
