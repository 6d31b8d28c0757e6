package cni_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// planned are networks by definition; a definition without one waits, "shop/theirs" is
// refused.
type planned struct{ networks map[string]cni.Network }

func (p planned) Plan(pod cni.Pod) ([]cni.Wish, error) {
	if pod.Selection == "?" {
		return nil, errors.New("networks is \"?\"; write a definition's name")
	}
	var out []cni.Wish
	for n, key := range strings.Fields(pod.Selection) {
		out = append(out, cni.Wish{Pod: pod, Key: key, IfName: fmt.Sprint("net", n+1)})
	}
	return out, nil
}

func (p planned) Attach(w cni.Wish) (cni.Network, error) {
	if w.Key == "shop/theirs" {
		return cni.Network{}, errors.New("network theirs does not admit namespace shop")
	}
	if n, ok := p.networks[w.Key]; ok {
		return n, nil
	}
	return cni.Network{}, &cni.PendingError{Reason: "NetworkAttachmentDefinition " + w.Key + " does not exist"}
}

func (p planned) All() []cni.Network { return nil }

func (p planned) Named(name string) (cni.Network, bool) {
	for _, n := range p.networks {
		if n.Name == name {
			return n, true
		}
	}
	return cni.Network{}, false
}

func (planned) Changed() <-chan struct{} { return nil }

func secondary(t *testing.T, name, subnet string) cni.Network {
	t.Helper()
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}})
	if err != nil {
		t.Fatal(err)
	}
	return cni.Network{Name: name, MTU: 1300, Addresses: cni.PoolAddresses{Pool: pool}}
}

func nativeCallOf(command, sandbox string) *wire.Call {
	c := call(command, sandbox)
	c.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
	return c
}

func progressOf(t *testing.T, r *rig, pod cni.Pod) cni.Progress {
	t.Helper()
	p, err := r.Progress(t.Context(), pod)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProgressOfEachStage(t *testing.T) {
	networks := planned{map[string]cni.Network{"shop/blue": secondary(t, "blue", "10.20.1.0/24")}}
	pod := web()
	pod.Selection = "shop/blue shop/late shop/theirs"
	r := newRig(t, func(c *cni.Config) {
		c.Networks, c.Status, c.Timeout = networks, func(cni.Pod, []cni.Attachment) {}, 200*time.Millisecond
	})
	p := progressOf(t, r, pod)
	if len(p.Interfaces) != 4 || p.Interfaces[0].Key != "default" || p.Interfaces[1].Network != "blue" || p.Interfaces[1].MTU != 1300 ||
		!p.Interfaces[2].Pending || p.Interfaces[2].IfName != "net2" || !strings.Contains(p.Interfaces[2].Waits, "shop/late does not exist") ||
		p.Interfaces[3].Pending || !strings.Contains(p.Interfaces[3].Waits, "does not admit") {
		t.Fatalf("before anything: %+v", p)
	}
	r.pods.Set(pod)
	if err := r.Prepare(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	p = progressOf(t, r, pod)
	blue := p.Interfaces[1]
	if blue.Allocated.IsZero() || blue.Prepared.IsZero() || !blue.Attached.IsZero() || blue.Port.Name != "" || len(blue.Addresses) != 1 || p.Call.Command != "PREPARE" || p.Call.Ended.IsZero() {
		t.Fatalf("prepared: %+v, call %+v", blue, p.Call)
	}
	r.refused(t, nativeCallOf(wire.Add, "s1"), wire.CodeTryAgain, "shop/late")
	p = progressOf(t, r, pod)
	if p.Call.Command != "ADD" || p.Call.Stage != cni.StageWaitNetwork || !strings.Contains(p.Call.Err, "shop/late does not exist") || p.Call.Ended.IsZero() {
		t.Errorf("an ADD that waited for a definition: %+v", p.Call)
	}

	pod.Selection = "shop/blue"
	r.pods.Set(pod)
	r.must(t, nativeCallOf(wire.Add, "s2"))
	p = progressOf(t, r, pod)
	blue = p.Interfaces[1]
	if len(p.Interfaces) != 2 || blue.Attached.IsZero() || blue.Port.Sandbox != "s2" || blue.IfName != "net1" || blue.State.Missing() != "" || p.Status.IsZero() || p.Call.Err != "" {
		t.Errorf("attached: %+v of %+v", blue, p)
	}
	r.start(t)
	p = progressOf(t, r, pod)
	if blue = p.Interfaces[1]; !blue.Attached.IsZero() || !blue.Allocated.IsZero() || blue.Port.Sandbox != "s2" || len(blue.Addresses) != 1 {
		t.Errorf("after a restart: %+v", blue)
	}
	pod.Selection = "?"
	if p = progressOf(t, r, pod); !strings.Contains(p.Refused, "write a definition's name") || len(p.Interfaces) != 2 || p.Interfaces[1].Planned {
		t.Errorf("of an annotation that cannot be read: %+v", p)
	}
}

// TestProgressWhileACallWaits asks while an ADD holds the pod's lock.
func TestProgressWhileACallWaits(t *testing.T) {
	reached := make(chan struct{})
	r := newRig(t, func(c *cni.Config) {
		c.AtStage = func(_, stage string) {
			if stage == cni.StageInstalled {
				close(reached)
			}
		}
	})
	r.pods.Set(web())
	r.ports.Hold = true
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Handle(ctx, call(wire.Add, "s1")); close(done) }()
	<-reached
	p := progressOf(t, r, web())
	if p.Call.Stage != cni.StageInstalled || !p.Call.Ended.IsZero() || p.Interfaces[0].State.Missing() == "" || p.Interfaces[0].Port.Name == "" {
		t.Errorf("found %+v", p)
	}
	cancel()
	<-done
}
