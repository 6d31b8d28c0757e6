package cni_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// callOf is a call for the pod web under a UID.
func callOf(command, sandbox, uid string) *wire.Call {
	c := call(command, sandbox)
	c.Args = strings.Replace(c.Args, "uid-web", uid, 1)
	return c
}

// TestSameNameAnotherUID is a StatefulSet's pod that is made anew under its name
// while the old one's sandbox still stands: two addresses, and the late DEL of the
// old sandbox takes nothing of the new one's.
func TestSameNameAnotherUID(t *testing.T) {
	r := newRig(t, nil)
	r.pods.Set(web())
	first := r.must(t, call(wire.Add, "old"))
	again := web()
	again.UID = "uid-again"
	r.pods.Delete("shop", "web", "uid-web")
	if err := r.Forget(t.Context(), "uid-web"); err != nil {
		t.Fatal(err)
	}
	r.pods.Set(again)
	second := r.must(t, callOf(wire.Add, "new", "uid-again"))
	if !strings.Contains(first, "10.244.1.3/24") || !strings.Contains(second, "10.244.1.4/24") {
		t.Errorf("addresses %s and %s", first, second)
	}
	r.must(t, callOf(wire.Del, "old", "uid-web")) // late
	r.state(t, `ports [shop/web/new] pods ["/run/netns/new"]`)
	if r.pool.Lookup("uid-again") == nil || r.pool.Lookup("uid-web") != nil {
		t.Errorf("after the late DEL the new pod has %v, the old %v", r.pool.Lookup("uid-again"), r.pool.Lookup("uid-web"))
	}
	r.must(t, callOf(wire.Check, "new", "uid-again"))
	r.must(t, callOf(wire.Del, "new", "uid-again"))
	r.state(t, nothingLeft)
}

// TestPodDeletedDuringAdd has the API server delete a pod while its ADD waits for
// OVN: the call ends as it would, and the address is free once DEL has come.
func TestPodDeletedDuringAdd(t *testing.T) {
	r := newRig(t, nil)
	r.ports.Hold = true
	r.pods.Set(web())
	added := make(chan *wire.Reply, 1)
	go func() { added <- r.Handle(t.Context(), call(wire.Add, "one")) }()
	var ports []cni.Port
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); len(ports) == 0; {
		select {
		case <-tick.C:
			ports, _ = r.ports.List(t.Context())
		case <-deadline.Done():
			t.Fatal("ADD made no port")
		}
	}
	r.pods.Delete("shop", "web", "uid-web")
	forgotten := make(chan error, 1)
	go func() { forgotten <- r.Forget(t.Context(), "uid-web") }() // waits for its turn
	r.ports.Install(ports[0].Name)
	<-added
	if err := <-forgotten; err != nil {
		t.Fatal(err)
	}
	r.must(t, call(wire.Del, "one"))
	r.state(t, nothingLeft)
	if r.pool.Lookup("uid-web") != nil {
		t.Error("the address leaked")
	}
}

// TestUnknownKeysOfTheConfigurationAreIgnored: runtimes and Multus add keys of
// their own, and a plugin must let them pass (CNI specification 1.1, section 1).
func TestUnknownKeysOfTheConfigurationAreIgnored(t *testing.T) {
	c, err := cni.ParseConfig([]byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","ipam":{"type":"x"},"cni.dev/attachments":[],"frobnicate":1}`))
	if err != nil || c.Name != "portolan" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := cni.ParseConfig([]byte(`{"cniVersion":1}`)); err == nil || !strings.Contains(err.Error(), "cniVersion") {
		t.Errorf("a wrong type: %v", err)
	}
}
