package cni_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// elsewhere are the networks of a pod whose default route is another interface's.
type elsewhere struct{ err error }

func (elsewhere) All() []cni.Network { return nil }

func (e elsewhere) Plan(p cni.Pod) ([]cni.Wish, error) {
	return []cni.Wish{{Pod: p, Key: "shop/out", IfName: "net1", DefaultRoute: true}}, e.err
}
func (elsewhere) Attach(cni.Wish) (cni.Network, error) {
	return cni.Network{}, errors.New("not asked for")
}
func (elsewhere) Named(string) (cni.Network, bool) { return cni.Network{}, false }
func (elsewhere) Changed() <-chan struct{}         { return nil }

// TestACallOfMultusForTheDefaultNetwork is one whose configuration says nothing of
// networks. The pod's annotation still says where its default route is; one that cannot be
// read takes nothing from the default network.
func TestACallOfMultusForTheDefaultNetwork(t *testing.T) {
	for _, c := range []struct {
		err         error
		has, hasNot string
	}{
		{nil, `"10.244.0.0/16"`, `"0.0.0.0/0"`},
		{errors.New("it is no JSON list"), `"0.0.0.0/0"`, `"10.244.0.0/16"`},
	} {
		r := newRig(t, func(k *cni.Config) {
			k.Networks, k.Cluster = elsewhere{c.err}, []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		})
		r.pods.Set(web())
		add := call(wire.Add, "s1")
		add.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`)
		if got := r.must(t, add); !strings.Contains(got, c.has) || strings.Contains(got, c.hasNot) {
			t.Errorf("annotation's error %v: %s, want a route to %s and none to %s", c.err, got, c.has, c.hasNot)
		}
	}
}
