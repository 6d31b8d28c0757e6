//go:build kernel

package cni_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// TestKernelBurst prints how long ten ADDs at once take.
func TestKernelBurst(t *testing.T) {
	var pods []cni.Pod
	for i := range 10 {
		pods = append(pods, cni.Pod{Namespace: "shop", Name: fmt.Sprint("p", i), UID: fmt.Sprint("uid-p", i)})
	}
	s := startServer(t, serverConfig{Socket: filepath.Join(t.TempDir(), "cni.sock"), Pods: pods,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	for _, prepared := range []bool{false, true} {
		took := make(chan time.Duration, len(pods))
		for i, p := range pods {
			sandbox(t, fmt.Sprintf("b%t%d", prepared, i))
			if prepared {
				s.must("bound " + p.String())
			}
		}
		for i, p := range pods {
			go func() {
				began := time.Now()
				reply, err := s.call(podCall(wire.Add, p, fmt.Sprintf("/run/netns/ptt-b%t%d", prepared, i)))
				if err != nil || reply.Error != nil {
					t.Errorf("%v %+v", err, reply)
				}
				took <- time.Since(began)
			}()
		}
		var all []time.Duration
		for range pods {
			all = append(all, <-took)
		}
		t.Logf("ten at once, prepared=%t: %s", prepared, quantiles(all))
		for i, p := range pods {
			s.succeed(podCall(wire.Del, p, fmt.Sprintf("/run/netns/ptt-b%t%d", prepared, i)))
			s.must("gone " + p.UID)
		}
	}
}

// TestKernelLatency prints how long an ADD takes over the socket, and in which
// stages: with an address that is prepared, as it normally is, and without. The
// stand-in for OVN needs no time.
func TestKernelLatency(t *testing.T) {
	for _, prepared := range []bool{true, false} {
		s := testServer(t)
		var took []time.Duration
		for i := range 30 {
			id := fmt.Sprintf("lat%t%d", prepared, i)
			ns := sandbox(t, id)
			if prepared {
				s.must("bound shop/web")
			}
			began := time.Now()
			s.succeed(kernelCall(wire.Add, id, ns))
			took = append(took, time.Since(began))
			s.succeed(kernelCall(wire.Del, id, ns))
			s.must("gone uid-web")
		}
		t.Logf("prepared=%t %s; %s", prepared, quantiles(took), s.must("stages"))
	}
}
