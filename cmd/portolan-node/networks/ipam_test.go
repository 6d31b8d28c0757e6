package networks_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// leased is a machine with network blue, whose addresses a plugin gives, and the plugin
// "other", which is not ours.
func leased(t *testing.T, m *machine) {
	d := definition("shop", "blue-net")
	d.Config = `{"cniVersion":"1.0.0","type":"portolan","name":"blue","netAttachDefName":"shop/blue-net","topology":"layer2","ipam":{"type":"host-local","subnet":"10.99.0.0/24"}}`
	m.networks.Put(d)
	other := definition("shop", "other")
	other.Config = `{"cniVersion":"1.0.0","type":"bridge","name":"other","capabilities":{"mac":true}}`
	m.networks.Put(other)
	m.networks.Put(&intent.Network{Name: "blue", ID: 3, Topology: intent.Layer2, Definitions: []string{"shop/blue-net"}})
	m.recover(t)
}

// TestAddressesOfAnotherPlugin follows them: given with the sandbox and not before,
// published, kept over a restart, and back with their plugin when nobody has them.
func TestAddressesOfAnotherPlugin(t *testing.T) {
	s := newServer()
	m := newMachine(t, s, "one", nil)
	leased(t, m)
	web := pod("web", "blue-net")
	m.pods.Set(web)
	if err := m.Prepare(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	if got := m.plugins.Log(); len(got) != 0 {
		t.Errorf("before there is a sandbox: %v", got)
	}
	m.must(t, primary(wire.Add, web))
	add := secondary(wire.Add, web, "net1", "blue", "shop/blue-net")
	first := m.must(t, add)
	if !strings.Contains(first, "10.99.0.1/24") || strings.Contains(first, "10.99.0.254\"}]") {
		t.Errorf("the result is %s", first)
	}
	want := "default eth0 [10.244.1.3/24], shop/blue-net net1 [10.99.0.1/24]"
	if got := m.interfaces(web); got != want {
		t.Errorf("published %s", got)
	}
	if key := m.publisher.All(web.UID)[1].TunnelKey; key == 0 {
		t.Error("the port has no tunnel key")
	}
	if again := m.must(t, add); again != first {
		t.Errorf("the second ADD says %s", again)
	}
	m.start(t, s, "one", nil)
	leased(t, m)
	m.must(t, secondary(wire.Check, web, "net1", "blue", "shop/blue-net"))
	if again := m.must(t, add); again != first {
		t.Errorf("after a restart ADD says %s", again)
	}
	if got := m.plugins.Log(); !slices.Equal(got, []string{"ADD shop/blue-net"}) {
		t.Errorf("called %v", got)
	}
	m.must(t, secondary(wire.Del, web, "net1", "blue", "shop/blue-net"))
	if got := m.plugins.Log(); !slices.Equal(got, []string{"DEL shop/blue-net"}) || m.interfaces(web) != "default eth0 [10.244.1.3/24]" {
		t.Errorf("after DEL %s, called %v", m.interfaces(web), got)
	}
}

// TestAddressesOfAnotherPluginFail has the plugin fail, and later something else: no
// lease stays behind.
func TestAddressesOfAnotherPluginFail(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	leased(t, m)
	web := pod("web", "blue-net,other")
	m.pods.Set(web)
	m.plugins.FailAt("shop/other")
	m.refused(t, native(wire.Add, web), "interface net2 by definition shop/other: failed as asked")
	// The undoing fails too: what is left is tried again.
	if got, want := m.plugins.Log(), []string{"ADD shop/blue-net", "ADD shop/other", "DEL shop/other", "DEL shop/blue-net"}; !slices.Equal(got, want) {
		t.Errorf("called %v, want %v", got, want)
	}
	m.refused(t, native(wire.Del, web), "shop/other")
	m.plugins.FailAt("")
	m.must(t, native(wire.Del, web))
	if left, _ := m.plugins.List(); len(left) != 0 || m.portNames() != "" {
		t.Errorf("left %v, %s", left, m.portNames())
	}
}

// TestTheOrderOfOthers is the annotation's, and its reverse; a value reaches who
// declares it.
func TestTheOrderOfOthers(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	leased(t, m)
	web := pod("web", `[{"name":"other","mac":"0a:00:00:00:00:01"},{"name":"blue-net","bandwidth":{"ingressRate":5000000}},{"name":"other"}]`)
	m.pods.Set(web)
	m.must(t, native(wire.Add, web))
	records, _ := m.plugins.List()
	for _, d := range records {
		if mac := string(d.Values["mac"]); (mac == `"0a:00:00:00:00:01"`) != (d.Key == "shop/other") {
			t.Errorf("%s is given the MAC %s", d.Key, mac)
		}
	}
	var got []string
	for _, a := range m.status {
		got = append(got, fmt.Sprintf("%s %s %d", a.Definition(), a.Result.IPs[0].Address.IP, a.Bandwidth.IngressRate))
	}
	if want := []string{"default 10.244.1.3 0", "shop/other 10.99.0.2 0", "shop/blue-net 10.99.0.1 5000000", "shop/other 10.99.0.3 0"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if b := m.publisher.All(web.UID)[1].Bandwidth; b != (cni.Bandwidth{IngressRate: 5000000}) {
		t.Errorf("published with %v", b)
	}
	m.must(t, native(wire.Del, web))
	if got, want := m.plugins.Log(), []string{"ADD shop/blue-net", "ADD shop/other", "ADD shop/other/1", "DEL shop/other/1", "DEL shop/other", "DEL shop/blue-net"}; !slices.Equal(got, want) {
		t.Errorf("called %v, want %v", got, want)
	}
}

// TestInsteadOfTheDefaultNetwork a pod may have that network with an address and a MAC of
// its choice, and no other.
func TestInsteadOfTheDefaultNetwork(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	leased(t, m)
	d := definition("shop", "home")
	d.Config = `{"cniVersion":"1.0.0","type":"portolan","name":"default"}`
	m.networks.Put(d)
	for instead, want := range map[string]string{
		"other":         "names shop/other, which is not the cluster's default network",
		"blue-net":      "names shop/blue-net, which is not the cluster's default network",
		"home,home":     "name one: a pod has one default network",
		`[{"mac":"x"}]`: "name is",
	} {
		p := pod("p", "")
		p.Instead = instead
		m.pods.Set(p)
		m.refused(t, native(wire.Add, p), want)
	}
	web := pod("web", "")
	web.Instead = `[{"name":"home","ips":["10.244.1.77"],"mac":"0a:00:00:00:00:77"}]`
	m.pods.Set(web)
	if result := m.must(t, native(wire.Add, web)); !strings.Contains(result, "10.244.1.77/24") || !strings.Contains(result, "0a:00:00:00:00:77") {
		t.Errorf("the result is %s", result)
	}
	if len(m.status) != 1 || m.status[0].Definition() != "default" {
		t.Errorf("told %v", m.status)
	}
}

// TestAPluginChangesTheMAC after Portolan's plugin: that is not left to be found out.
func TestAPluginChangesTheMAC(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	leased(t, m)
	d := definition("shop", "chained")
	d.Config = `{"cniVersion":"1.0.0","name":"flat","plugins":[{"type":"portolan","topology":"layer2","netAttachDefName":"shop/chained"},{"type":"tuning","mac":"0a:00:00:00:00:99"}]}`
	m.networks.Put(d)
	m.networks.Put(&intent.Network{Name: "flat", ID: 4, Topology: intent.Layer2, Definitions: []string{"shop/chained"}})
	web := pod("web", "chained")
	m.pods.Set(web)
	m.plugins.MAC = "0a:00:00:00:00:99"
	m.refused(t, native(wire.Add, web), "definition shop/chained: a plugin after Portolan's has changed its MAC from", "to 0a:00:00:00:00:99")
	if left, _ := m.plugins.List(); len(left) != 0 || m.portNames() != "" {
		t.Errorf("left %v, %s", left, m.portNames())
	}
}

// TestAWayOutWithoutAGateway is no way out.
func TestAWayOutWithoutAGateway(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	leased(t, m)
	m.plugins.NoGateway = true
	web := pod("web", `[{"name":"other","default-route":[]}]`)
	m.pods.Set(web)
	m.refused(t, native(wire.Add, web), "neither the pod's annotation nor the plugin names a gateway")
	web.Selection = `[{"name":"other","default-route":["10.99.0.200"]}]`
	m.pods.Set(web)
	m.must(t, native(wire.Add, web))
}
