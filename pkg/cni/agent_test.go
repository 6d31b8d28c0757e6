package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

func TestAddDel(t *testing.T) {
	r := newRig(t, nil)
	r.pods.Set(web())
	got := r.must(t, call(wire.Add, "one"))
	for _, want := range []string{`"address":"10.244.1.3/24"`, `"gateway":"10.244.1.1"`, `"mac":"0a:58:0a:f4:01:03"`, `"interface":1`,
		`"dst":"0.0.0.0/0"`, `"cniVersion":"1.0.0"`, `"sandbox":"/run/netns/one"`} {
		if !strings.Contains(got, want) {
			t.Errorf("result %s lacks %s", got, want)
		}
	}
	if again := r.must(t, call(wire.Add, "one")); again != got {
		t.Errorf("the second ADD says %s, the first %s", again, got)
	}
	r.state(t, `ports [shop/web/one] pods ["/run/netns/one"]`)
	r.must(t, call(wire.Check, "one"))
	r.must(t, call(wire.Del, "one"))
	r.must(t, call(wire.Del, "one"))
	r.state(t, nothingLeft)
	r.refused(t, call(wire.Check, "one"), wire.CodeInconsistent, "no port belongs to this sandbox")
	if r.pool.Lookup("uid-web") == nil || r.publisher.Held("uid-web").MAC == nil {
		t.Error("DEL freed the pod's address")
	}
	if err := r.Forget(t.Context(), "uid-web"); err != nil {
		t.Fatal(err)
	}
	if r.pool.Lookup("uid-web") != nil || r.publisher.Held("uid-web").MAC != nil {
		t.Error("the deleted pod keeps its address")
	}
}

// TestAnotherRowsPortIsNotThePods has OVN install a port of the pod's name that is
// not the pod's: ADD fails with the reason, leaves nothing, and succeeds once it is.
func TestAnotherRowsPortIsNotThePods(t *testing.T) {
	theirs := errors.New("held by somebody else")
	r := newRig(t, func(c *cni.Config) {
		c.Written = func(_ context.Context, p cni.Pod) error {
			if p.UID != "uid-web" {
				t.Errorf("asked for %s", p)
			}
			return theirs
		}
	})
	r.pods.Set(web())
	r.refused(t, call(wire.Add, "one"), wire.CodeFailed, "held by somebody else")
	r.state(t, nothingLeft)
	theirs = nil
	r.must(t, call(wire.Add, "one"))
	r.state(t, `ports [shop/web/one] pods ["/run/netns/one"]`)
}

func TestPrepared(t *testing.T) {
	r := newRig(t, nil)
	r.pods.Set(web())
	for range 2 {
		if err := r.Prepare(t.Context(), web()); err != nil {
			t.Fatal(err)
		}
	}
	r.state(t, nothingLeft)
	if a := r.publisher.Held("uid-web"); a.MAC.String() != "0a:58:0a:f4:01:03" {
		t.Errorf("published as %+v: OVN cannot begin", a)
	}
	r.must(t, gcKeeping()) // what is prepared is nobody's leftover
	if got := r.must(t, call(wire.Add, "one")); !strings.Contains(got, "10.244.1.3/24") {
		t.Errorf("another address than the prepared: %s", got)
	}
	r.state(t, `ports [shop/web/one] pods ["/run/netns/one"]`)
	r.must(t, call(wire.Del, "one"))
	if err := r.Prepare(t.Context(), web()); err != nil {
		t.Fatal(err)
	}
	r.state(t, nothingLeft)
}

func TestPreparedPodGoes(t *testing.T) {
	r := newRig(t, nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	released := make(chan cni.Pod, 1)
	r.config.Publisher = publisherFunc(func(p cni.Pod) { released <- p })
	r.start(t)
	go r.Run(ctx)
	r.pods.Set(web())
	if err := r.Prepare(ctx, web()); err != nil {
		t.Fatal(err)
	}
	r.pods.Delete("shop", "web", "uid-web")
	r.Gone(web())
	if p := <-released; p != web() {
		t.Errorf("released %+v", p)
	}
	r.state(t, nothingLeft)
}

// publisherFunc passes on what is released.
type publisherFunc func(cni.Pod)

func (publisherFunc) Attached(cni.Pod, []cni.Attachment) {}
func (f publisherFunc) Released(p cni.Pod, _ []cni.Attachment, done func()) {
	f(p)
	done()
}

func TestSandboxRecreated(t *testing.T) {
	r := newRig(t, nil)
	r.pods.Set(web())
	first := r.must(t, call(wire.Add, "old"))
	second := r.must(t, call(wire.Add, "new"))
	if !strings.Contains(first, "10.244.1.3/24") || !strings.Contains(second, "10.244.1.3/24") {
		t.Errorf("the pod's address changed with its sandbox: %s, %s", first, second)
	}
	r.state(t, `ports [shop/web/new] pods ["/run/netns/new"]`)
	r.must(t, call(wire.Del, "old"))
	r.state(t, `ports [shop/web/new] pods ["/run/netns/new"]`)
	r.must(t, call(wire.Del, "new"))
	r.state(t, nothingLeft)
}

func TestForceDeletedPodKeepsAddressUntilDel(t *testing.T) {
	r := newRig(t, nil)
	r.pods.Set(web())
	r.must(t, call(wire.Add, "one"))
	if err := r.Forget(t.Context(), "uid-web"); err != nil {
		t.Fatal(err)
	}
	r.state(t, `ports [shop/web/one] pods ["/run/netns/one"]`)
	if r.pool.Lookup("uid-web") == nil {
		t.Fatal("the address of a running sandbox is free")
	}
	r.must(t, call(wire.Del, "one"))
	r.state(t, nothingLeft)
	if r.pool.Lookup("uid-web") != nil {
		t.Fatal("the address leaked")
	}
}

func TestRollback(t *testing.T) {
	for _, stage := range []string{cni.StageCreateVeth, cni.StageConfigure, cni.StageAnnounce} {
		t.Run(stage, func(t *testing.T) {
			r := newRig(t, nil)
			r.pods.Set(web())
			r.links.FailAt(stage)
			r.refused(t, call(wire.Add, "one"), wire.CodeFailed, "ADD of pod shop/web", "stage "+stage, "after", "ip -d link show p")
			r.state(t, nothingLeft)
			r.links.FailAt("")
			if got := r.must(t, call(wire.Add, "two")); !strings.Contains(got, "10.244.1.3/24") {
				t.Errorf("the retry got another address: %s", got)
			}
		})
	}
}

func TestTimeoutLeavesOnlyTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *cni.Config) { c.Timeout = 5 * time.Second })
		r.ports.Hold = true
		r.pods.Set(web())
		r.refused(t, call(wire.Add, "one"), wire.CodeTryAgain, "stage wait-installed after 5s", "no ovn-installed", "ovn-controller's log")
		r.state(t, nothingLeft)
		r.ports.Hold = false
		if got := r.must(t, call(wire.Add, "two")); !strings.Contains(got, "10.244.1.3/24") {
			t.Errorf("the retry got another address: %s", got)
		}
	})
}

func TestUnknownPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.refused(t, call(wire.Add, "one"), wire.CodeTryAgain, "stage find-pod after 1m0s", "watch has not delivered it", "API server")
		other := web()
		other.UID = "uid-earlier"
		r.pods.Set(other)
		r.refused(t, call(wire.Add, "one"), wire.CodeTryAgain, "uid-earlier", "uid-web")
		go func() {
			<-time.After(time.Second) // synthetic time
			r.pods.Set(web())
		}()
		r.must(t, call(wire.Add, "one"))
	})
}

func TestStaticPod(t *testing.T) {
	r := newRig(t, nil)
	mirror := web()
	mirror.Mirror = "5f0c"
	r.pods.Set(mirror)
	c := call(wire.Add, "one")
	c.Args = strings.Replace(c.Args, "uid-web", "5f0c", 1)
	r.must(t, c)
	if r.publisher.Held("uid-web").MAC == nil {
		t.Error("the address does not belong to the mirror pod's UID")
	}
}

func TestOneSandboxAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.ports.Hold = true
		r.pods.Set(web())
		var calls sync.WaitGroup
		defer calls.Wait()
		calls.Go(func() { r.must(t, call(wire.Add, "one")) })
		synctest.Wait() // in wait-installed
		deleted := make(chan struct{})
		calls.Go(func() { r.must(t, call(wire.Del, "one")); close(deleted) })
		synctest.Wait()
		select {
		case <-deleted:
			t.Error("DEL did not wait for the ADD")
		default:
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("impatient"))
		defer cancel()
		if reply := r.Handle(ctx, call(wire.Del, "one")); reply.Error == nil || !strings.Contains(reply.Error.Msg, "wait-turn") {
			t.Errorf("a third call: %+v", reply.Error)
		}
		ports, _ := r.ports.List(t.Context())
		r.ports.Install(ports[0].Name)
		<-deleted
		r.state(t, nothingLeft)
	})
}

func TestRecover(t *testing.T) {
	r := newRig(t, nil)
	gone, bound := web(), web()
	gone.Name, gone.UID = "gone", "uid-gone"
	bound.Name, bound.UID = "bound", "uid-bound"
	r.pods.Set(web())
	r.must(t, call(wire.Add, "one"))
	for _, p := range []cni.Pod{gone, bound} {
		r.pods.Set(p)
		if err := r.Prepare(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.links.Create(cni.Pair{Device: cni.Device{Host: "p0123456789ab"}, Endpoint: cni.Endpoint{Netns: "/run/netns/orphan"}}); err != nil {
		t.Fatal(err)
	}
	r.pods.Delete("shop", "gone", "uid-gone")
	r.pool, _ = alloc.NewPool(alloc.PoolConfig{Subnets: r.pool.Subnets()})
	r.config.Pool = r.pool
	annotated := cni.Attachment{Pod: cni.Pod{Namespace: "shop", Name: "noted", UID: "uid-noted"}, Key: "default",
		Grant: cni.Grant{Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.77/24")}}}
	r.pods.Set(annotated.Pod)
	noted := r.publisher.Held("uid-bound") // prepared, and its annotation written
	r.publisher = &cnitest.Publisher{}
	r.config.Publisher = r.publisher
	r.start(t, annotated, noted)
	r.state(t, `ports [shop/web/one] pods ["/run/netns/one"]`)
	for uid, want := range map[string]string{
		"uid-web": "[10.244.1.3/24]", "uid-gone": "[]", "uid-bound": "[10.244.1.5/24]", "uid-noted": "[10.244.1.77/24]",
	} {
		if got := fmt.Sprint(r.pool.Lookup(uid)); got != want {
			t.Errorf("%s holds %s, want %s", uid, got, want)
		}
		if held := r.publisher.Held(uid); (want == "[]") != (held.MAC == nil) {
			t.Errorf("%s was published as %+v", uid, held)
		}
	}
	r.must(t, call(wire.Add, "one")) // idempotent over a restart
	r.must(t, call(wire.Del, "one"))
}

func TestGC(t *testing.T) {
	r := newRig(t, nil)
	for i, sandbox := range []string{"one", "two"} {
		p := web()
		p.Name, p.UID = fmt.Sprint("web", i), fmt.Sprint("uid", i)
		r.pods.Set(p)
		c := call(wire.Add, sandbox)
		c.Args = fmt.Sprintf("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web%d", i)
		r.must(t, c)
	}
	r.must(t, gcKeeping("two"))
	r.state(t, `ports [shop/web1/two] pods ["/run/netns/two"]`)
	none := call(wire.GC, "")
	none.Config = []byte(`{"cniVersion":"1.1.0"}`)
	r.refused(t, none, wire.CodeConfig, "valid-attachments")
	r.must(t, gcKeeping())
	r.state(t, nothingLeft)
}

func gcKeeping(sandboxes ...string) *wire.Call {
	keep := []cni.ValidAttachment{}
	for _, s := range sandboxes {
		keep = append(keep, cni.ValidAttachment{ContainerID: s, IfName: "eth0"})
	}
	b, _ := json.Marshal(keep)
	return &wire.Call{Command: wire.GC, Config: fmt.Appendf(nil, `{"cniVersion":"1.1.0","cni.dev/valid-attachments":%s}`, b)}
}

func TestStatus(t *testing.T) {
	var notReady error
	r := newRig(t, func(c *cni.Config) { c.Ready = func() error { return notReady } })
	r.must(t, call(wire.Status, ""))
	notReady = errors.New("ovn-controller is not connected")
	r.refused(t, call(wire.Status, ""), wire.CodeUnavailable, "ovn-controller is not connected")
	notReady = wire.Errorf(wire.CodeDisconnected, "ovs-vswitchd is not running")
	r.refused(t, call(wire.Status, ""), wire.CodeDisconnected, "ovs-vswitchd")
}

func TestNotRecovered(t *testing.T) {
	r := newRig(t, nil)
	a, err := cni.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	r.Agent = a
	r.refused(t, call(wire.Add, "one"), wire.CodeTryAgain, "still starting")
	r.refused(t, call(wire.Status, ""), wire.CodeUnavailable, "still starting")
}

func TestSubnetFull(t *testing.T) {
	r := newRig(t, nil)
	for i := range 252 {
		if _, err := r.pool.Allocate(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	r.pods.Set(web())
	r.refused(t, call(wire.Add, "one"), wire.CodeNoAddressLeft, "10.244.1.0/24", "252 of 252", "maxPods")
	r.state(t, nothingLeft)
}

func TestDatabaseAway(t *testing.T) {
	r := newRig(t, nil)
	r.pods.Set(web())
	r.must(t, call(wire.Add, "one"))
	r.ports.Fail(errors.New("connection refused"))
	r.refused(t, call(wire.Del, "one"), wire.CodeFailed, "stage remove-port", "ovs-vsctl show")
	r.ports.Fail(nil)
	r.must(t, call(wire.Del, "one"))
	r.state(t, nothingLeft)
}

func TestServe(t *testing.T) {
	r := newRig(t, nil)
	r.ports.Hold = true
	r.pods.Set(web())
	socket := filepath.Join(t.TempDir(), "run", "cni.sock")
	l, err := cni.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- r.Serve(ctx, l) }()
	if reply, err := wire.Do(ctx, socket, call(wire.Status, "")); err != nil || reply.Error != nil {
		t.Fatalf("STATUS: %v %+v", err, reply)
	}
	// A caller that goes away is noticed: its ADD is undone, and the next may begin.
	hasty, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	if _, err := wire.Do(hasty, socket, call(wire.Add, "one")); err == nil {
		t.Fatal("the held ADD was answered")
	}
	cancel()
	if reply, err := wire.Do(ctx, socket, call(wire.Del, "one")); err != nil || reply.Error != nil {
		t.Fatalf("DEL: %v %+v", err, reply)
	}
	stop()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if _, err := wire.Do(t.Context(), socket, call(wire.Status, "")); err == nil {
		t.Fatal("served after the end")
	}
}
