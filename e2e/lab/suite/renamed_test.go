package suite

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/state"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// renamed is the name that a machine comes back under, and moved the number that
// its address ends in.
const (
	renamed = "ovn-elsewhere"
	moved   = 12
)

// TestFaultNodeRenamed has a machine go, its Node deleted, and come back under
// another name with the address, the disk and the databases that it had; and then
// under its own. No packet of other nodes may be lost; under the new name its pods
// talk to all, other zones know nothing of the old one; and in the end every node is
// what it was.
func TestFaultNodeRenamed(t *testing.T) {
	r := rebootRig(t)
	t.Cleanup(func() { ownName(t, r) })
	do(t, r, faults.Fault{Name: "node under another name, and back (other nodes' packets)", Reboots: true, Patience: 4 * time.Minute,
		Do: func(_ context.Context, r *faults.Rig) error {
			if err := bootAs(t, r, r.Node, renamed, "--as", renamed); err != nil {
				return err
			}
			was := machines(t)[renamed].Addrs
			if err := settledAs(t, r, renamed, was, r.Node); err != nil {
				return err
			}
			return bootAs(t, r, renamed, r.Node)
		}})
}

// TestFaultNodeAddress has a machine go and come back with another address, and then
// with its own.
func TestFaultNodeAddress(t *testing.T) {
	r := rebootRig(t)
	before := machines(t)[r.Node].Addrs
	do(t, r, faults.Fault{Name: "node's address changed, and back (other nodes' packets)", Reboots: true, Patience: 4 * time.Minute,
		Do: func(_ context.Context, r *faults.Rig) error {
			var now []netip.Addr
			for _, p := range layout(t).Addrs(moved) {
				now = append(now, p.Addr())
			}
			if err := bootAs(t, r, "", r.Node, "--last", fmt.Sprint(moved)); err != nil {
				return err
			}
			gone := make([]string, len(before))
			for i, a := range before {
				gone[i] = a.String()
			}
			if err := settledAs(t, r, r.Node, now, gone...); err != nil {
				return err
			}
			return bootAs(t, r, "", r.Node)
		}})
}

// ownName gives the machine its own name again where the test has left it another:
// what comes after is not of that node.
func ownName(t *testing.T, r *faults.Rig) {
	if given(t, renamed) == "" && given(t, r.Node) != "" {
		return
	}
	if err := bootAs(t, r, renamed, r.Node); err != nil {
		t.Errorf("%s has not come back under its name: %v", r.Node, err)
	}
}

// rebootRig counts packets of the victim alone: all pods are there.
func rebootRig(t *testing.T) *faults.Rig {
	t.Helper()
	if zone := layout(t).Zone; zone != "node" {
		t.Skipf("the lab's zone is %s: these faults are of nodes that are zones", zone)
	}
	fresh(t)
	apply(t, podManifest("a", victim)+podManifest("b", victim)+podManifest("near", victim))
	pods := ready(t)
	r := rigOf(t, faults.Path{Name: faults.SameNode, From: pods["a"].Place, To: pods["near"].Place},
		faults.Path{Name: faults.Outside, From: pods["b"].Place, To: outside(t)})
	r.Node, r.Others = other, []string{victim}
	serve(t, outside(t), port) // for settledAs, which is called again when a fault is
	return r
}

// bootAs cuts the power of the rig's machine, deletes the Node gone ("": none), and
// boots it; it returns when it is ready as now.
func bootAs(t *testing.T, r *faults.Rig, gone, now string, how ...string) error {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // it is used to clean up, too
	if _, err := r.Lab(ctx, "crash", r.Node); err != nil {
		return err
	}
	if gone != "" {
		// A Node that is deleted while no manager leads is another matter (docs/limits.md).
		// The one that led may have been on it: the other leads when its Lease has run out.
		err := inTime(30*time.Second, func() error {
			host, err := leads(t)
			if err == nil && host == r.Node {
				err = fmt.Errorf("the manager of %s, which is off, leads still", host)
			}
			return err
		})
		if err != nil {
			return err
		}
		if out, err := command(t, "kubectl", "delete", "node", gone, "--wait=true", "--timeout=30s"); err != nil {
			return errors.New(out)
		}
	}
	if _, err := r.Lab(ctx, append(append([]string{"boot", "--wait"}, how...), r.Node)...); err != nil {
		return err
	}
	err := inTime(60*time.Second, func() error {
		if given(t, now) == "" {
			return fmt.Errorf("node %s has no id yet", now)
		}
		return nil
	})
	if err != nil {
		return err
	}
	out, err := command(t, "kubectl", "wait", "--for=condition=Ready", "node/"+now, "--timeout=100s")
	if err != nil {
		return errors.New(out)
	}
	return inTime(time.Minute, func() error { return faults.Live(ctx, r.Node) })
}

// settledAs wants the machine, under its new name and addresses, to be a node as any
// other: a pod of it reaches a pod elsewhere and the outside, where it is seen with
// the node's address; and another zone has not a word of what is gone.
func settledAs(t *testing.T, r *faults.Rig, name string, addrs []netip.Addr, gone ...string) error {
	t.Helper()
	m := machines(t)[name]
	if fmt.Sprint(m.Addrs) != fmt.Sprint(addrs) {
		return fmt.Errorf("node %s has addresses %s, want %s", name, m.Addrs, addrs)
	}
	apply(t, podManifest("there", name))
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/there", "--timeout=90s")
	p := pod{Node: r.Node, Pod: "there", Place: packets.Place{Name: "there"}}
	for ip := range strings.FieldsSeq(kubectl(t, "-n", namespace, "get", "pod", "there", "-o", "jsonpath={.status.podIPs[*].ip}")) {
		p.Addrs = append(p.Addrs, netip.MustParseAddr(ip))
	}
	p.Addr = p.Addrs[0]
	p, ok := find(p)
	if !ok {
		return fmt.Errorf("pod there: no network namespace has %s", p.Addrs)
	}
	away := outside(t)
	for _, f := range families(t) {
		for _, to := range []packets.Place{r.Paths[0].To.In(f), away.In(f), (packets.Place{Name: name, Path: wire.Path(wire.Namespace(r.Node)), Addr: m.Addr, Addrs: m.Addrs}).In(f)} {
			if err := inTime(20*time.Second, func() error { return answered(p.Place.In(f), to) }); err != nil {
				return err
			}
		}
		got, err := packets.TCP(p.Place.In(f), netip.AddrPortFrom(away.In(f).Addr, port), 64, patient)
		if err != nil {
			return err
		}
		if want := f.Pick(addrs); got.Source != want {
			return fmt.Errorf("outside, a pod of %s is seen as %s, want %s", name, got.Source, want)
		}
	}
	kubectl(t, "-n", namespace, "delete", "pod", "there", "--wait=true")
	// The object goes before the sandbox does; what is switched off between them
	// leaves a port, which the next start removes and tells.
	err := inTime(time.Minute, func() error {
		if _, there := find(p); there {
			return fmt.Errorf("pod there is deleted, its network namespace with %s still exists", p.Addrs)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return inTime(time.Minute, func() error { return wordless(t.Context(), r.Others[0], gone) })
}

// wordless reports a row of a node that still says one of some words.
func wordless(ctx context.Context, host string, words []string) error {
	s, err := state.Take(ctx, host)
	if err != nil {
		return err
	}
	for key, fields := range s {
		for column, text := range fields {
			for _, w := range words {
				for word := range strings.FieldsFuncSeq(fmt.Sprint(key, " ", column, " ", text), notOfWord) {
					if word == w {
						return fmt.Errorf("%s still says %s: %v %s %s", host, w, key, column, text)
					}
				}
			}
		}
	}
	return nil
}

// notOfWord separates names and addresses.
func notOfWord(c rune) bool { return strings.ContainsRune(" \t\n\"'(){}[],;=/|→", c) }
