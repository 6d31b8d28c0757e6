package networks_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestSixteenNetworks has one pod on sixteen networks of two topologies, in one call.
func TestSixteenNetworks(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	var names []string
	for i := range 16 {
		name := fmt.Sprint("net", i)
		if i%2 == 0 {
			m.accept(layer3(name, fmt.Sprintf("10.%d.0.0/16", 20+i), 24, "shop/"+name))
		} else {
			m.accept(layer2(name, fmt.Sprintf("10.%d.0.0/24", 20+i)))
		}
		names = append(names, name)
	}
	m.recover(t)
	web := pod("web", strings.Join(names, ","))
	m.pods.Set(web)
	m.must(t, native(wire.Add, web))
	if len(m.status) != 17 {
		t.Fatalf("network-status of %d interfaces", len(m.status))
	}
	seen := map[string]bool{}
	for i, a := range m.status[1:] {
		if a.IfName != fmt.Sprintf("net%d", i+1) || len(a.Addresses) != 1 || seen[a.MAC.String()] {
			t.Errorf("interface %d is %+v", i, a)
		}
		seen[a.MAC.String()] = true
	}
	if got := len(strings.Split(m.portNames(), ", ")); got != 17 {
		t.Errorf("%d ports: %s", got, m.portNames())
	}
	m.must(t, native(wire.Check, web))
	m.must(t, native(wire.Del, web))
	if got := m.portNames(); got != "" {
		t.Errorf("left %s", got)
	}
}

// TestEditedWhileItsPodsBegin has a definition edited between two pods, to what is not
// accepted: nothing of it counts until the Network says so, and text that cannot be
// read is refused by name, with the pods that are there untouched.
func TestEditedWhileItsPodsBegin(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	edit := func(config string) {
		d := definition("shop", "flat")
		if d.Config = config; config != "" && strings.HasPrefix(config, `"`) {
			d.Config = `{"cniVersion":"1.0.0","type":"portolan","name":"flat","netAttachDefName":"shop/flat",` + config + `}`
		}
		m.networks.Put(d)
	}
	edit(`"topology":"layer2","subnets":"10.2.0.0/24"`)
	m.networks.Put(layer2("flat", "10.2.0.0/24"))
	m.recover(t)
	add := func(name, words string) {
		t.Helper()
		p := pod(name, "flat")
		m.pods.Set(p)
		if words != "" {
			m.refused(t, native(wire.Add, p), words)
			return
		}
		m.must(t, native(wire.Add, p))
		if got := fmt.Sprint(m.status[1].Addresses); !strings.HasPrefix(got, "[10.2.0.") {
			t.Errorf("pod %s has %s", name, got)
		}
	}
	add("before", "")
	edit(`"topology":"layer2","subnets":"10.9.0.0/24","mtu":1300`)
	add("between", "")
	edit(`"topology":"layer2","subnet":"10.9.0.0/24"`)
	add("after", `field "subnet" is not known; did you mean subnets?`)
	edit(`{"cniVersion"`)
	add("broken", "is no JSON object")
	edit(`"topology":"layer2","subnets":"10.2.0.0/24"`)
	add("after", "")
	if got, want := m.interfaces(pod("before", "")), "default eth0 [10.244.1.3/24], shop/flat net1 [10.2.0.1/24]"; got != want {
		t.Errorf("the first pod has %s, want %s", got, want)
	}
	m.networks.Delete(intent.Key{Kind: intent.KindNetwork, Name: "flat"})
}
