package cni_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// TestAGonePodIsPreparedNoMore has a pod wait for an address of a full node, while
// everything that happens says anew that it is bound: it is tried at growing intervals,
// once and not once for each; and when it is gone, what is free is not given to it.
func TestAGonePodIsPreparedNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		r := newRig(t, func(c *cni.Config) {
			pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/29")}})
			if err != nil {
				t.Fatal(err)
			}
			c.Pool, c.Workers = pool, 1
			c.AtStage = func(command, stage string) {
				if command == "PREPARE" && stage == cni.StageAllocate {
					tries.Add(1)
				}
			}
		})
		for i := range 4 { // .3 to .6
			if _, err := r.config.Pool.Allocate(fmt.Sprint("other", i)); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		go r.Run(ctx)
		r.pods.Set(web())
		for range 5 {
			r.Bound(web())
			synctest.Wait()
		}
		tries.Store(0)
		<-time.After(100 * time.Second)
		if synctest.Wait(); tries.Load() != 6 { // after 1, 2, 4 … 32 s
			t.Errorf("%d tries in 100 s, want 6", tries.Load())
		}
		r.pods.Delete("shop", "web", "uid-web")
		r.Gone(web())
		synctest.Wait()
		r.config.Pool.Release("other0")
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if got := r.config.Pool.Lookup("uid-web default"); got != nil || len(r.config.Pool.Owners()) != 3 {
			t.Errorf("the pod that is gone has %v; owners are %v", got, r.config.Pool.Owners())
		}
		stop()
		synctest.Wait()
	})
}

// held is a network whose pods wait until it is let go.
type held struct {
	elsewhere
	mu      sync.Mutex
	free    bool
	changed chan struct{}
	asked   chan struct{} // closed when it is asked first
	once    sync.Once
}

func (h *held) Plan(p cni.Pod) ([]cni.Wish, error) {
	return []cni.Wish{{Pod: p, Key: "shop/held", IfName: "net1"}}, nil
}

func (h *held) Attach(cni.Wish) (cni.Network, error) {
	h.once.Do(func() { close(h.asked) })
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.free {
		return cni.Network{}, &cni.PendingError{Reason: "it is held"}
	}
	return cni.Network{}, errors.New("a pod that is gone asks")
}

func (h *held) Changed() <-chan struct{} { return h.changed }

// TestAnAddEndsWithItsPod deletes a pod whose ADD waits for a network: the call ends at
// once and says why, and what comes free afterwards is not given to it. So does one for
// a pod of that name that was before.
func TestAnAddEndsWithItsPod(t *testing.T) {
	for _, how := range []string{"deleted", "replaced by another of its name"} {
		h := &held{changed: make(chan struct{}), asked: make(chan struct{})}
		told := ""
		r := newRig(t, func(c *cni.Config) {
			c.Networks, c.Tell = h, func(_ cni.Pod, message string) { told = message }
		})
		r.pods.Set(web())
		add := call(wire.Add, "s1")
		add.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
		done := make(chan string, 1)
		go func() { done <- fmt.Sprint(r.Handle(context.Background(), add).Error) }()
		<-h.asked
		if how == "deleted" {
			r.pods.Delete("shop", "web", "uid-web")
		} else {
			r.pods.Set(cni.Pod{Namespace: "shop", Name: "web", UID: "uid-next"})
		}
		select {
		case err := <-done:
			if !strings.Contains(err, "it is held: pod shop/web (UID uid-web) is gone: it was deleted, or has ended") {
				t.Errorf("%s: %s", how, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the call does not end", how)
		}
		if told != "" {
			t.Errorf("%s: a pod that is gone is told of: %s", how, told)
		}
		r.state(t, nothingLeft)
		if owners := r.pool.Owners(); len(owners) > 0 {
			t.Errorf("%s: addresses of %v", how, owners)
		}
	}
}
