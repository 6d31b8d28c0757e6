package cni_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// rig is an agent on fakes.
type rig struct {
	*cni.Agent
	config    cni.Config
	pods      *cni.PodStore
	ports     *cnitest.Ports
	links     *cnitest.Links
	publisher *cnitest.Publisher
	pool      *alloc.Pool
}

func newRig(t *testing.T, change func(*cni.Config)) *rig {
	t.Helper()
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{pods: cni.NewPodStore(), ports: &cnitest.Ports{}, links: &cnitest.Links{}, publisher: &cnitest.Publisher{}, pool: pool}
	r.config = cni.Config{
		Pods: r.pods, Ports: r.ports, Links: r.links, Publisher: r.publisher, Pool: pool, MTU: 1400,
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&r.config)
	}
	r.start(t)
	return r
}

// start makes the agent anew, as after a restart.
func (r *rig) start(t *testing.T, known ...cni.Attachment) {
	t.Helper()
	agent, err := cni.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Recover(t.Context(), r.pods.List(), known); err != nil {
		t.Fatal(err)
	}
	r.Agent = agent
}

func web() cni.Pod { return cni.Pod{Namespace: "shop", Name: "web", UID: "uid-web"} }

func call(command, sandbox string) *wire.Call {
	return &wire.Call{
		Command: command, ContainerID: sandbox, Netns: "/run/netns/" + sandbox, IfName: "eth0",
		Args:   "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=uid-web",
		Config: []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`),
	}
}

// must serves a call that has to succeed.
func (r *rig) must(t *testing.T, c *wire.Call) string {
	t.Helper()
	reply := r.Handle(t.Context(), c)
	if reply.Error != nil {
		t.Fatalf("%s %s: %v", c.Command, c.ContainerID, reply.Error)
	}
	return string(reply.Result)
}

// refused serves a call that has to fail with a code, and to say all of words.
func (r *rig) refused(t *testing.T, c *wire.Call, code uint, words ...string) {
	t.Helper()
	reply := r.Handle(t.Context(), c)
	if reply.Error == nil {
		t.Fatalf("%s %s succeeded", c.Command, c.ContainerID)
	}
	if reply.Error.Code != code {
		t.Errorf("code %d, want %d: %v", reply.Error.Code, code, reply.Error)
	}
	for _, w := range words {
		if !strings.Contains(reply.Error.Error(), w) {
			t.Errorf("%q does not say %q", reply.Error, w)
		}
	}
}

func (r *rig) state(t *testing.T, want string) {
	t.Helper()
	ports, _ := r.ports.List(t.Context())
	var got []string
	for _, p := range ports {
		got = append(got, fmt.Sprintf("%s/%s", p.Pod, p.Sandbox))
	}
	if s := fmt.Sprintf("ports %v pods %q", got, r.links.At()); s != want {
		t.Errorf("state: %s, want %s", s, want)
	}
}

const nothingLeft = `ports [] pods []`
