package cni_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// believed is how long somebody believes in a pod's address after its end.
const believed = 50 * time.Second

// node is a machine whose agent is killed in the middle of what it does.
type node struct {
	t       *testing.T
	r       *rand.Rand
	ports   *cnitest.Ports
	links   *cnitest.Links
	journal cni.Journal
	noted   map[string][]netip.Prefix // annotations, by UID
	bound   map[string]cni.Pod        // live pods, by UID
	ended   map[string]time.Time      // when a pod ended
	given   map[string]netip.Addr     // what was told of a pod
	rows    map[string]bool           // UIDs that this zone's rows name
	sandbox map[string]string         // pod UID → container id
	pods    *cni.PodStore
	agent   *cni.Agent
	waits   []func()
	death   int // stages until the process is killed; 0: it lives
	born    int
	log     []string
}

// killed is the panic of a process that is killed.
var errKilled = errors.New("killed")

// Attached is cni.Publisher's. It is where two pods with one address are seen.
func (n *node) Attached(_ cni.Pod, all []cni.Attachment) {
	a := all[0]
	addr := a.Addresses[0].Addr()
	for uid, had := range n.given {
		_, ended := n.ended[uid]
		if uid != a.Pod.UID && had == addr && (!ended || n.rows[uid] || n.sandbox[uid] != "" || time.Since(n.ended[uid]) < believed) {
			n.t.Fatalf("%s is given %s, which %s has (ended %v, in rows %v, sandbox %q)\n%v", a.Pod.UID, addr, uid, ended, n.rows[uid], n.sandbox[uid], n.log)
		}
	}
	n.given[a.Pod.UID], n.rows[a.Pod.UID] = addr, true
	if n.r.IntN(2) == 0 { // beside the path, or lost
		n.noted[a.Pod.UID] = a.Addresses
	}
}

// Released is cni.Publisher's.
func (n *node) Released(p cni.Pod, _ []cni.Attachment, done func()) {
	n.waits = append(n.waits, func() { delete(n.rows, p.UID); done() })
}

// start begins an agent's life with what is on the machine and in the API.
func (n *node) start() {
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/26")}})
	if err != nil {
		n.t.Fatal(err)
	}
	n.pods, n.waits, n.death = cni.NewPodStore(), nil, 0
	n.agent, err = cni.New(cni.Config{
		Pods: n.pods, Ports: n.ports, Links: n.links, Publisher: n, Pool: pool, Journal: n.journal,
		Log: slog.New(slog.DiscardHandler), AtStage: func(string, string) {
			if n.death--; n.death == 0 {
				panic(errKilled)
			}
		},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	var known []cni.Attachment
	for _, uid := range slices.Sorted(maps.Keys(n.bound)) {
		n.pods.Set(n.bound[uid])
		if n.noted[uid] != nil {
			known = append(known, cni.Attachment{Pod: n.bound[uid], Key: "default", Grant: cni.Grant{Addresses: n.noted[uid]}})
		}
	}
	for uid := range n.rows { // the first full comparison takes away what nobody wants
		if _, live := n.bound[uid]; !live {
			delete(n.rows, uid)
		}
	}
	if err := n.agent.Recover(n.t.Context(), n.pods.List(), known); err != nil {
		n.t.Fatal(err)
	}
}

// living does something that may kill the process; then another begins.
func (n *node) living(what string, do func()) {
	n.log = append(n.log, fmt.Sprintf("%s dies at %d", what, n.death))
	defer func() {
		if p := recover(); p != nil {
			if p != errKilled { //nolint:errorlint // the panic's own value
				panic(p)
			}
			n.start()
		}
	}()
	do()
}

func (n *node) call(command, uid string) {
	p := n.bound[uid]
	n.agent.Handle(context.Background(), &wire.Call{
		Command: command, ContainerID: n.sandbox[uid], Netns: "/run/netns/" + n.sandbox[uid], IfName: "eth0",
		Args:   fmt.Sprintf("K8S_POD_NAMESPACE=a;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Name, uid),
		Config: []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`),
	})
}

// pick is one of the keys of a map.
func pick[V any](n *node, m map[string]V) (string, bool) {
	if len(m) == 0 {
		return "", false
	}
	return slices.Sorted(maps.Keys(m))[n.r.IntN(len(m))], true
}

// step does one thing of what happens on a node.
func (n *node) step() {
	if n.r.IntN(5) == 0 {
		n.death = 1 + n.r.IntN(8)
	}
	switch n.r.IntN(8) {
	case 0, 1: // bound
		n.born++
		p := cni.Pod{Namespace: "a", Name: fmt.Sprint("p", n.born), UID: fmt.Sprint("uid", n.born)}
		n.bound[p.UID] = p
		n.pods.Set(p)
		n.living("bound "+p.UID, func() { _ = n.agent.Prepare(context.Background(), p) })
	case 2, 3: // a sandbox
		if uid, ok := pick(n, n.bound); ok {
			if n.sandbox[uid] == "" {
				n.sandbox[uid] = fmt.Sprint("sb", n.born, n.r.IntN(1000))
			}
			n.living("add "+uid, func() { n.call(wire.Add, uid) })
		}
	case 4, 5: // its end
		if uid, ok := pick(n, n.sandbox); ok {
			n.living("del "+uid, func() { n.call(wire.Del, uid); delete(n.sandbox, uid) })
		}
	case 6: // the pod's end
		if uid, ok := pick(n, n.bound); ok {
			p := n.bound[uid]
			delete(n.bound, uid)
			delete(n.noted, uid)
			n.ended[uid] = time.Now()
			n.pods.Delete(p.Namespace, p.Name, uid)
			n.living("gone "+uid, func() { _ = n.agent.Forget(context.Background(), uid) })
		}
	case 7: // rows are gone, or time passes, or the process is killed at rest
		for _, done := range n.waits {
			done()
		}
		n.waits = nil
		<-time.After(time.Duration(n.r.IntN(20)) * time.Second) // the bubble's time
		if n.r.IntN(3) == 0 {
			n.living("killed", func() { panic(errKilled) })
		}
	}
}

// TestNoAddressIsTwoPods plays what happens on a node, with the agent killed between
// any two stages of anything: no pod is told an address that another has, or had so
// lately that somebody may believe in it, or that a row still names.
func TestNoAddressIsTwoPods(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			journal, err := cni.OpenJournal(filepath.Join(t.TempDir(), "addresses"), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer journal.Close()
			n := &node{
				t: t, r: rand.New(rand.NewPCG(seed, 1)), ports: &cnitest.Ports{}, links: &cnitest.Links{}, journal: journal,
				noted: map[string][]netip.Prefix{}, bound: map[string]cni.Pod{}, ended: map[string]time.Time{},
				given: map[string]netip.Addr{}, rows: map[string]bool{}, sandbox: map[string]string{},
			}
			n.start()
			for range 150 {
				n.step()
			}
		})
	}
}
