//go:build kernel

package cni_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// fourNetworks are those of a pod that selects "four": each with a subnet of this node's.
type fourNetworks struct {
	networks  [4]cni.Network
	resources map[string]bool // definitions that name one
}

func newFourNetworks() (*fourNetworks, error) {
	f := &fourNetworks{}
	for n := range f.networks {
		pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", 20+n))}})
		if err != nil {
			return nil, err
		}
		f.networks[n] = cni.Network{Name: fmt.Sprint("net", n), MTU: 1400,
			Addresses: cni.PoolAddresses{Pool: pool, Routes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", 20+n))}}}
	}
	return f, nil
}

func (f *fourNetworks) Plan(p cni.Pod) ([]cni.Wish, error) {
	var out []cni.Wish
	if p.Selection != "four" { // words DEFINITION@INTERFACE[=ADDRESS]
		for word := range strings.FieldsSeq(p.Selection) {
			name, rest, _ := strings.Cut(word, "@")
			w := cni.Wish{Pod: p, Key: "shop/" + name}
			var asked string
			if w.IfName, asked, _ = strings.Cut(rest, "="); asked != "" {
				w.IPs = []netip.Prefix{netip.MustParsePrefix(asked + "/32")}
			}
			out = append(out, w)
		}
		return out, nil
	}
	for n, w := range f.networks {
		out = append(out, cni.Wish{Pod: p, Key: "shop/" + w.Name, IfName: fmt.Sprint("net", n+1)})
	}
	return out, nil
}

func (f *fourNetworks) Attach(w cni.Wish) (cni.Network, error) {
	n, ok := f.Named(strings.TrimPrefix(w.Definition(), "shop/"))
	if !ok {
		return n, fmt.Errorf("no network of %s", w.Key)
	}
	if f.resources[w.Key] {
		n.Resource = "example.org/soft"
	}
	return n, nil
}

func (f *fourNetworks) Named(name string) (cni.Network, bool) {
	for _, n := range f.networks {
		if n.Name == name {
			return n, true
		}
	}
	return cni.Network{}, false
}

// share makes net2 and net3 shared networks, whose addresses are in files.
func (f *fourNetworks) share(dir string) {
	for n := 2; n < 4; n++ {
		f.networks[n].Addresses = blockFile{fmt.Sprintf("%s/block-%d", dir, n), netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", 20+n))}
	}
}

// String lists the owners of the networks' addresses.
func (f *fourNetworks) String() string {
	owners := make([]string, len(f.networks))
	for n, w := range f.networks {
		owners[n] = fmt.Sprint(w.Addresses.Owners())
	}
	return strings.Join(owners, " ")
}

func (f *fourNetworks) All() []cni.Network { return f.networks[:] }

func (f *fourNetworks) Changed() <-chan struct{} { return nil }

func nativeServer(t *testing.T) *server {
	p := web()
	p.Selection = "four"
	return startServer(t, serverConfig{Socket: t.TempDir() + "/cni.sock", Pods: []cni.Pod{p}, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
}

func nativeCall(command, id, netns string) *wire.Call {
	c := kernelCall(command, id, netns)
	c.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
	return c
}

// TestKernelNative makes five interfaces in one call, whole, and takes them away.
func TestKernelNative(t *testing.T) {
	s := nativeServer(t)
	ns := sandbox(t, "native")
	first := s.succeed(nativeCall(wire.Add, "native", ns))
	if again := s.succeed(nativeCall(wire.Add, "native", ns)); again != first || !strings.Contains(first, "10.244.1.3/24") {
		t.Errorf("the second ADD says %s, the first %s", again, first)
	}
	out := in(t, ns, "ip", "-4", "addr") + in(t, ns, "ip", "route")
	for _, want := range []string{"default via 10.244.1.1 dev eth0", "inet 10.20.0.3/24", "inet 10.23.0.3/24", "10.20.0.0/16 via 10.20.0.1 dev net1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	record, err := vsctl("--bare", "--columns=external_ids", "find", "interface", "external_ids:pod-if-name=net2")
	if err != nil || !strings.Contains(record, "iface-id=shop.net1_shop_web") || !strings.Contains(record, "k8s.ovn.org/nad=shop/net1") || !strings.Contains(record, "k8s.ovn.org/network=net1") {
		t.Errorf("record %s, %v", record, err)
	}
	s.succeed(nativeCall(wire.Check, "native", ns))
	if got := s.left(); got != "veths=5 ports=5 owners [uid-web]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Del, "native", ns))
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

// TestKernelNativeKilled kills the server at every step of a call with four networks of
// both kinds, with OVN at work, and does what a runtime does next: the same again, or a DEL
// and a new sandbox. Nothing is left, and nothing is there twice.
func TestKernelNativeKilled(t *testing.T) {
	nbctl := startOVN(t)
	for _, port := range []string{"shop_web", "shop.net0_shop_web", "shop.net1_shop_web", "shop.net2_shop_web", "shop.net3_shop_web"} {
		nbctl("lsp-add", "ptt", port, "--", "lsp-set-addresses", port, "unknown", "--", "lsp-set-options", port, "requested-chassis=ptt", "iface-id-ver=uid-web")
	}
	for _, command := range []string{"PREPARE", wire.Add, wire.Del} {
		for _, stage := range map[string][]string{
			"PREPARE": {cni.StageAllocate},
			wire.Add: {cni.StageFindPod, cni.StageAllocate, cni.StageCreateVeth, cni.StageCreatePort, cni.StageConfigure,
				cni.StageInstalled, cni.StageAnnounce, cni.StageAnswer},
			wire.Del: {cni.StageWaitTurn, cni.StageRemoveVeth, cni.StageRemovePort, cni.StageAnswer},
		}[command] {
			for _, again := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/again=%t", command, stage, again), func(t *testing.T) { nativeKilled(t, command, stage, again) })
			}
		}
	}
}

func nativeKilled(t *testing.T, command, stage string, again bool) {
	s := liveServer(t, "four")
	first, second := sandbox(t, "n1"), sandbox(t, "n2")
	if command == wire.Del {
		s.succeed(nativeCall(wire.Add, "n1", first))
	}
	s = s.again(command + "/" + stage)
	if command == "PREPARE" {
		if answer, alive := s.ask("bound shop/web"); alive {
			t.Fatalf("it survived: %s", answer)
		}
	} else if reply, err := s.call(nativeCall(command, "n1", first)); err == nil {
		t.Fatalf("it survived: %+v", reply)
	}
	s = s.again("")
	s.must("bound shop/web") // the watch tells of the pod, and the first comparison comes
	s.must("compare")
	if again && command != wire.Del {
		s.succeed(nativeCall(wire.Add, "n1", first))
		s.whole("n1", first)
	}
	s.succeed(nativeCall(wire.Del, "n1", first))
	s.succeed(nativeCall(wire.Add, "n2", second))
	s.whole("n2", second)
	s.succeed(nativeCall(wire.Del, "n2", second))
	s.must("gone uid-web")
	s.nothing()
}

// whole checks that a sandbox has all five interfaces, once each, and nobody else any.
func (s *server) whole(id, ns string) {
	s.t.Helper()
	s.succeed(nativeCall(wire.Check, id, ns))
	const want = "eth0=10.244.1.3/24 net1=10.20.0.3/24 net2=10.21.0.3/24 net3=10.22.0.1/24 net4=10.23.0.1/24"
	if got, _ := interfaces(s.t, ns); got != want {
		s.t.Errorf("the pod has %s, want %s", got, want)
	}
	if got := s.left(); got != "veths=5 ports=5 owners [uid-web]" {
		s.t.Error(got)
	}
	if got := s.must("networks"); got != "networks [uid-web shop/net0] [uid-web shop/net1] [uid-web shop/net2] [uid-web shop/net3]" {
		s.t.Error(got)
	}
	if got := s.must("compare"); got != "repaired []" {
		s.t.Error(got)
	}
}

// TestKernelNativeLatency prints what four prepared networks more cost an ADD.
func TestKernelNativeLatency(t *testing.T) {
	for _, four := range []bool{false, true} {
		s, name := testServer(t), "one"
		if four {
			s, name = nativeServer(t), "five"
		}
		var took []time.Duration
		for i := range 30 {
			id := fmt.Sprint(name, i)
			ns := sandbox(t, id)
			s.must("bound shop/web")
			began := time.Now()
			s.succeed(nativeCall(wire.Add, id, ns))
			took = append(took, time.Since(began))
			s.succeed(nativeCall(wire.Del, id, ns))
			s.must("gone uid-web")
		}
		t.Logf("%s: %s; %s", name, quantiles(took), s.must("stages"))
	}
}
