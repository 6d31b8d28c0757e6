package cni_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// compare compares twice: what may be on its way is set right the second time.
func (l *liveRig) compare(t *testing.T, want ...string) {
	t.Helper()
	l.repairs = nil
	if err := errors.Join(l.Compare(t.Context()), l.Compare(t.Context())); err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(l.repairs))
	for n, r := range l.repairs {
		got[n] = r.What + " " + r.Pod.String()
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("repaired %v (%+v), want %v", got, l.repairs, want)
	}
}

func compared(t *testing.T) *liveRig {
	t.Helper()
	l := newLiveRig(t)
	l.pods.Set(selecting("blue@net1 red@net2"))
	l.must(t, native(wire.Add, "one"))
	l.compare(t)
	return l
}

func TestCompareLostDel(t *testing.T) {
	l := compared(t)
	l.links.End("/run/netns/one")
	l.compare(t, "sandbox shop/web")
	l.state(t, nothingLeft)
	if got := texts(l.publisher.All("uid-web")); got != "eth0=10.244.1.3 net1=10.20.0.3 net2=10.21.0.3" {
		t.Errorf("the pod lives, and has %s", got)
	}
	l.must(t, native(wire.Add, "one")) // in a new namespace of the old path
	l.links.End("/run/netns/one")
	if err := l.Forget(t.Context(), "uid-web"); err != nil {
		t.Fatal(err)
	}
	l.pods.Delete("shop", "web", "uid-web")
	l.compare(t, "sandbox shop/web")
	l.state(t, nothingLeft)
	if owners := fmt.Sprint(l.pool.Owners()); owners != "[]" || l.publisher.All("uid-web") != nil {
		t.Errorf("owners %s, published %v", owners, l.publisher.All("uid-web"))
	}
}

func TestCompareLostPod(t *testing.T) {
	l := compared(t)
	l.must(t, native(wire.Del, "one"))
	l.pods.Delete("shop", "web", "uid-web") // and nobody says Gone
	l.compare(t, "pod shop/web")
	for _, n := range append(l.networks.All(), cni.Network{Addresses: cni.PoolAddresses{Pool: l.pool}}) {
		if got := fmt.Sprint(n.Addresses.Owners()); got != "[]" {
			t.Errorf("network %s has owners %s", n.Name, got)
		}
	}
}

func TestCompareLostAddresses(t *testing.T) {
	l := compared(t)
	blue, _ := l.networks.Named("blue")
	pool := blue.Addresses.(cni.PoolAddresses).Pool
	for _, owner := range []string{"uid-web shop/blue/1", "uid-gone shop/blue"} {
		if _, err := pool.Allocate(owner); err != nil {
			t.Fatal(err)
		}
	}
	l.compare(t, "address /", "address shop/web")
	if got := fmt.Sprint(pool.Owners()); got != "[uid-web shop/blue]" {
		t.Errorf("owners %s", got)
	}
}

func TestCompareStrangers(t *testing.T) {
	l := compared(t)
	stranger := cni.Port{Name: "pffffffffffff", Pod: cni.Pod{Namespace: "shop", Name: "old", UID: "uid-old"}, Key: "default", IfName: "eth0", Sandbox: "old", Netns: "/run/netns/old"}
	lives := stranger
	lives.Name = "peeeeeeeeeeee"
	if err := errors.Join(l.ports.Ensure(t.Context(), stranger, lives), l.links.Create(cni.Pair{Device: cni.Device{Host: lives.Name}, Endpoint: cni.Endpoint{Netns: "/run/netns/old", IfName: "eth0"}}),
		l.links.Create(cni.Pair{Device: cni.Device{Host: "pdddddddddddd"}, Endpoint: cni.Endpoint{Netns: "/run/netns/other"}})); err != nil {
		t.Fatal(err)
	}
	l.compare(t, "port shop/old", "device /")
	l.state(t, `ports [shop/web/one shop/web/one shop/web/one shop/old/old] pods ["/run/netns/old" "/run/netns/one" "/run/netns/one" "/run/netns/one"]`)
}

// TestCompareMakesWhole takes from a running pod the ports and pairs of its interfaces.
func TestCompareMakesWhole(t *testing.T) {
	l := compared(t)
	ports, _ := l.ports.List(t.Context())
	for _, p := range ports {
		if err := l.ports.Remove(t.Context(), p.Name, ""); err != nil {
			t.Fatal(err)
		}
	}
	l.compare(t, "record shop/web", "record shop/web", "record shop/web")
	for _, p := range ports {
		if err := l.links.Delete(p.Name); err != nil {
			t.Fatal(err)
		}
	}
	l.compare(t, "interface shop/web", "interface shop/web", "interface shop/web")
	l.want(t, "eth0=10.244.1.3 net1=10.20.0.3 net2=10.21.0.3", nil)
	l.must(t, native(wire.Check, "one"))
	// One that was made, and not known to be whole when the agent ended, is looked at.
	l.links.FailAt(cni.StageConfigure)
	if err := l.links.Delete(l.portOf(t, "net1").Name); err != nil {
		t.Fatal(err)
	}
	if err := l.Compare(t.Context()); err == nil {
		t.Error("a failure was not told")
	}
	l.links.FailAt("")
	if !l.portOf(t, "net1").Unfinished {
		t.Error("it is not marked")
	}
	l.fresh(t)
	l.compare(t)
	l.want(t, "eth0=10.244.1.3 net1=10.20.0.3 net2=10.21.0.3", nil)
	l.must(t, native(wire.Check, "one"))
}

func (l *liveRig) portOf(t *testing.T, ifName string) cni.Port {
	t.Helper()
	ports, _ := l.ports.List(t.Context())
	for _, p := range ports {
		if p.IfName == ifName {
			return p
		}
	}
	t.Fatalf("no port of %s in %+v", ifName, ports)
	return cni.Port{}
}

// TestCompareLeavesWhatIsBeingMade compares in every stage of an ADD and of a DEL,
// and never finds anything to set right.
func TestCompareLeavesWhatIsBeingMade(t *testing.T) {
	for _, command := range []string{wire.Add, wire.Del} {
		synctest.Test(t, func(t *testing.T) {
			l := newLiveRig(t)
			var calls sync.WaitGroup
			l.config.AtStage = func(at, stage string) {
				if at != command {
					return
				}
				calls.Go(func() { _ = errors.Join(l.Compare(context.Background()), l.Compare(context.Background())) })
				synctest.Wait() // it waits for the pod's turn
			}
			l.pods.Set(selecting("blue@net1 red@net2"))
			l.start(t)
			l.must(t, native(wire.Add, "one"))
			calls.Wait()
			if command == wire.Del {
				l.must(t, native(wire.Del, "one"))
			}
			calls.Wait()
			if len(l.repairs) > 0 {
				t.Errorf("%s: repaired %+v", command, l.repairs)
			}
		})
	}
}

// TestCompareTouchesNobodysOwn: an earlier release's ports, of which nobody knows where
// their sandbox is, and what a pod has made of its own interface.
func TestCompareTouchesNobodysOwn(t *testing.T) {
	l := newLiveRig(t)
	old := cni.Port{Name: "paaaaaaaaaaaa", Pod: web(), Key: "default", Network: "default", IfName: "eth0", Sandbox: "one",
		MAC: "0a:58:0a:f4:01:03", Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.3/24")}}
	if err := errors.Join(l.ports.Ensure(t.Context(), old), l.links.Create(cni.Pair{Device: cni.Device{Host: old.Name}, Endpoint: cni.Endpoint{Netns: "/run/netns/one", IfName: "eth0"}})); err != nil {
		t.Fatal(err)
	}
	l.pods.Set(web())
	l.start(t)
	l.compare(t)
	if err := l.links.Delete(old.Name); err != nil { // its end, as far as anybody can tell
		t.Fatal(err)
	}
	l.compare(t)
	l.state(t, `ports [shop/web/one] pods []`)
	l.must(t, call(wire.Del, "one"))
	l.state(t, nothingLeft)
}

// TestCompareSaysWhatPodsHave: the status is told again, for whoever compares it.
func TestCompareSaysWhatPodsHave(t *testing.T) {
	l := compared(t)
	l.fresh(t)
	l.status = ""
	l.compare(t)
	if !strings.HasPrefix(l.status, "eth0=10.244.1.3 net1=10.20.0.3") {
		t.Errorf("told %q", l.status)
	}
}
