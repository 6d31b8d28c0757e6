//go:build kernel

package cni_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// blockFile is a shared network's addresses: entries that a file holds, as an
// AddressBlock does, for whoever is killed.
type blockFile struct {
	path   string
	subnet netip.Prefix
}

func (b blockFile) read() map[string]int {
	entries := map[string]int{}
	if text, err := os.ReadFile(b.path); err == nil {
		_ = json.Unmarshal(text, &entries)
	}
	return entries
}

func (b blockFile) write(entries map[string]int) error {
	text, err := json.Marshal(entries)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(b.path+".new", b.path)
}

// Give implements cni.Addresses.
func (b blockFile) Give(_ context.Context, w cni.Wish) (cni.Grant, error) {
	entries := b.read()
	place, ok := entries[w.Owner()]
	if !ok {
		taken := map[int]bool{}
		for _, n := range entries {
			taken[n] = true
		}
		for place = 1; taken[place]; place++ {
		}
		entries[w.Owner()] = place
		if err := b.write(entries); err != nil {
			return cni.Grant{}, err
		}
	}
	g := cni.Grant{Addresses: []netip.Prefix{alloc.At(b.subnet, uint64(place))}, TunnelKey: place}
	return cni.Finish(w, g, nil, []netip.Prefix{}), nil
}

// Keep implements cni.Addresses.
func (b blockFile) Keep(w cni.Wish, given []netip.Prefix) (cni.Grant, error) {
	place, ok := b.read()[w.Owner()]
	if !ok || !slices.Equal(given, []netip.Prefix{alloc.At(b.subnet, uint64(place))}) {
		return cni.Grant{}, fmt.Errorf("no entry has %s at %v", w.Owner(), given)
	}
	return b.Give(context.Background(), w)
}

// Free implements cni.Addresses.
func (b blockFile) Free(owner string) bool {
	entries := b.read()
	_, had := entries[owner]
	delete(entries, owner)
	return had && b.write(entries) == nil
}

// Owners implements cni.Addresses.
func (b blockFile) Owners() []string {
	var out []string
	for owner := range b.read() {
		out = append(out, owner)
	}
	slices.Sort(out)
	return out
}

// liveServer has a pod on networks of both kinds, and a journal.
func liveServer(t *testing.T, selection string) *server {
	p := web()
	p.Selection = selection
	dir := t.TempDir()
	return startServer(t, serverConfig{Socket: filepath.Join(dir, "cni.sock"), Pods: []cni.Pod{p}, Durable: true,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
}

// selects has the server see another annotation, now and when it starts again.
func (s *server) selects(selection string) string {
	s.config.Pods[0].Selection = selection
	answer, _ := s.ask("select " + selection)
	return answer
}

// interfaces are a sandbox's names with their IPv4 addresses, and the kernel's indexes.
func interfaces(t *testing.T, ns string) (names string, index map[string]string) {
	t.Helper()
	index = map[string]string{}
	var out []string
	for line := range strings.Lines(in(t, ns, "ip", "-4", "-o", "addr")) {
		words := strings.Fields(line)
		if words[1] != "lo" {
			out = append(out, words[1]+"="+words[3])
			index[words[1]] = words[0]
		}
	}
	slices.Sort(out)
	return strings.Join(out, " "), index
}

// TestKernelLive attaches and detaches while the pod runs, also by a server that has not
// made the sandbox; what stays is not touched.
func TestKernelLive(t *testing.T) {
	s := liveServer(t, "net0@net1")
	ns := sandbox(t, "live")
	s.succeed(nativeCall(wire.Add, "live", ns))
	_, before := interfaces(t, ns)
	for _, step := range []struct{ selection, want string }{
		{"net0@net1 net2@data", "data=10.22.0.1/24 eth0=10.244.1.3/24 net1=10.20.0.3/24"},
		{"net0@net1 net2@data net1@net3", "data=10.22.0.1/24 eth0=10.244.1.3/24 net1=10.20.0.3/24 net3=10.21.0.3/24"},
		{"net0@net1 net1@net3", "eth0=10.244.1.3/24 net1=10.20.0.3/24 net3=10.21.0.3/24"},
		{"net0@net1 net1@net3=10.21.0.99", "eth0=10.244.1.3/24 net1=10.20.0.3/24 net3=10.21.0.99/24"},
		{"net0@net1", "eth0=10.244.1.3/24 net1=10.20.0.3/24"},
	} {
		for range 2 { // the second time by a server that was started anew, and has nothing to do
			if answer := s.selects(step.selection); answer != "done <nil>" {
				t.Fatalf("%s: %s", step.selection, answer)
			}
			if got, _ := interfaces(t, ns); got != step.want {
				t.Errorf("%q: the pod has %s, want %s", step.selection, got, step.want)
			}
			if answer := s.must("compare"); answer != "repaired []" {
				t.Errorf("%q: %s", step.selection, answer)
			}
			s.succeed(nativeCall(wire.Check, "live", ns))
			s = s.again("")
		}
	}
	if _, after := interfaces(t, ns); after["eth0"] != before["eth0"] || after["net1"] != before["net1"] {
		t.Errorf("what stays was made anew: %v, %v", before, after)
	}
	s.succeed(nativeCall(wire.Del, "live", ns))
	s.must("gone uid-web")
	s.nothing()
}

// nothing checks that nothing is left, of networks' addresses neither.
func (s *server) nothing() {
	s.t.Helper()
	if got := s.left(); got != clean {
		s.t.Error(got)
	}
	if got := s.must("networks"); got != "networks [] [] [] []" {
		s.t.Error(got)
	}
}

// TestKernelLiveKilled kills the server at every step of an attach and a detach while the
// pod runs: the next one comes to the same.
func TestKernelLiveKilled(t *testing.T) {
	for change, stages := range map[string][]string{
		"net0@net1 net2@data": {cni.StageAllocate, cni.StageCreateVeth, cni.StageCreatePort, cni.StageConfigure,
			cni.StageInstalled, cni.StageAnnounce, cni.StageAnswer},
		"": {cni.StageRemoveVeth, cni.StageRemovePort, cni.StageFreeAddress},
	} {
		for _, stage := range stages {
			t.Run(fmt.Sprintf("%q/%s", change, stage), func(t *testing.T) {
				s := liveServer(t, "net0@net1")
				ns := sandbox(t, "lk")
				s.succeed(nativeCall(wire.Add, "lk", ns))
				s = s.again("LIVE/" + stage)
				if answer := s.selects(change); answer != "" {
					t.Fatalf("it survived: %s", answer)
				}
				s = s.again("")
				want, left := "eth0=10.244.1.3/24", "veths=1 ports=1 owners [uid-web]"
				if change != "" {
					want, left = "data=10.22.0.1/24 eth0=10.244.1.3/24 net1=10.20.0.3/24", "veths=3 ports=3 owners [uid-web]"
				}
				if answer := s.selects(change); answer != "done <nil>" {
					t.Fatal(answer)
				}
				s.must("compare")
				if got, _ := interfaces(t, ns); got != want {
					t.Errorf("the pod has %s, want %s", got, want)
				}
				if got := s.left(); got != left {
					t.Error(got)
				}
				if out, err := vsctl("--bare", "--columns=name", "find", "interface", "external_ids:portolan/unfinished=true"); err != nil || out != "" {
					t.Errorf("not finished: %s, %v", out, err)
				}
				s.succeed(nativeCall(wire.Check, "lk", ns))
				s.succeed(nativeCall(wire.Del, "lk", ns))
				s.must("gone uid-web")
				s.nothing()
			})
		}
	}
}

// run runs a command of the node, which has to succeed.
func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// endSandbox deletes the only sandbox that has pairs, and waits for the kernel to take
// them away, which it does by and by.
func endSandbox(t *testing.T, name string) {
	t.Helper()
	run(t, "ip", "netns", "del", "ptt-"+name)
	links, err := cni.NewVeths(false, intent.AttachmentGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	deadline := time.After(10 * time.Second)
	for {
		left, err := links.List()
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("pairs of a namespace that is deleted: %v", left)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestKernelCompare takes things away behind the server's back, and puts some there: it
// sets right what is wrong, says what, and touches nothing else.
func TestKernelCompare(t *testing.T) {
	s := liveServer(t, "four")
	ns := sandbox(t, "cmp")
	s.succeed(nativeCall(wire.Add, "cmp", ns))
	if got := s.must("compare"); got != "repaired []" {
		t.Error(got)
	}
	portOf := func(ifName string) string {
		t.Helper()
		name, err := vsctl("--bare", "--columns=name", "find", "interface", "external_ids:pod-if-name="+ifName)
		if err != nil || name == "" {
			t.Fatalf("port of %s: %q %v", ifName, name, err)
		}
		return name
	}
	stranger := []string{"add-port", bridge, "pdddddddddddd", "--", "set", "interface", "pdddddddddddd",
		"external_ids:portolan/owner=attachment/uid-x/eth0", "external_ids:iface-id-ver=uid-x", "external_ids:sandbox=gone", "external_ids:portolan/netns=/run/netns/ptt-gone"}
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"an OVS port is deleted", func() { ovs(t, "del-port", bridge, portOf("net2")) }, "repaired [record shop/web]"},
		{"a pair is deleted", func() { run(t, "ip", "link", "del", portOf("net3")) }, "repaired [interface shop/web]"},
		{"eth0 is deleted in the pod", func() { in(t, ns, "ip", "link", "del", "eth0") }, "repaired [interface shop/web]"},
		{"a pair of nobody", func() { run(t, "ip", "link", "add", "pffffffffffff", "type", "veth", "peer", "name", "nobody") }, "repaired [device /]"},
		{"a port of nobody", func() { ovs(t, stranger...) }, "repaired [port /]"},
		{"the pod changes its own addresses, routes and state", func() {
			in(t, ns, "ip", "addr", "add", "192.0.2.1/32", "dev", "net1")
			in(t, ns, "ip", "route", "del", "default")
			in(t, ns, "ip", "link", "set", "net4", "down")
		}, "repaired []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.do()
			if got := s.must("compare"); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if got := s.left(); got != "veths=5 ports=5 owners [uid-web]" {
				t.Error(got)
			}
		})
	}
	if got := strings.Fields(in(t, ns, "ip", "-4", "-o", "addr", "show", "dev", "net1")); !slices.Contains(got, "192.0.2.1/32") {
		t.Errorf("what the pod did is undone: %v", got)
	}
	in(t, ns, "ip", "link", "set", "net4", "up")
	// The DEL is lost, as Multus' is: the namespace goes, and nobody calls.
	endSandbox(t, "cmp")
	if got := s.must("compare"); got != "repaired [sandbox shop/web]" {
		t.Error(got)
	}
	if got := s.left(); got != "veths=0 ports=0 owners [uid-web]" {
		t.Error(got)
	}
	s.must("unbind") // the pod goes, and nobody says so
	if got := s.must("compare"); got != "repaired [pod shop/web]" {
		t.Error(got)
	}
	s.nothing()
}

// ovs runs ovs-vsctl, which has to succeed.
func ovs(t *testing.T, args ...string) string {
	t.Helper()
	out, err := vsctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestKernelCompareAtStart: what happened while no server ran is found by the next one.
func TestKernelCompareAtStart(t *testing.T) {
	s := liveServer(t, "four")
	ns, lost := sandbox(t, "st"), sandbox(t, "lost")
	s.succeed(nativeCall(wire.Add, "lost", lost))
	s.stop()
	endSandbox(t, "lost")
	s = s.again("")
	s.must("compare")
	if got := s.left(); got != "veths=0 ports=0 owners [uid-web]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Add, "st", ns))
	name := ovs(t, "--bare", "--columns=name", "find", "interface", "external_ids:pod-if-name=net2")
	s.stop()
	run(t, "ip", "link", "del", name)
	s = s.again("")
	if got := s.must("compare"); got != "repaired [interface shop/web]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Check, "st", ns))
	s.succeed(nativeCall(wire.Del, "st", ns))
	s.must("gone uid-web")
	s.nothing()
}

// TestKernelCompareDuringAdd compares while an ADD waits for OVN, in each of its stages
// that take time: what it makes is not collected.
func TestKernelCompareDuringAdd(t *testing.T) {
	ovs(t, "set", "interface", bridge, "external_ids:"+markOVN+"=true") // the stand-in rests
	s := liveServer(t, "four")
	ns := sandbox(t, "during")
	answered := make(chan error, 1)
	go func() {
		reply, err := s.call(nativeCall(wire.Add, "during", ns))
		if err == nil && reply.Error != nil {
			err = reply.Error
		}
		answered <- err
	}()
	ovs(t, "--timeout=10", "wait-until", "interface", bridge, "ofport=65534")
	for range 3 {
		if got := s.must("compare"); got != "repaired []" {
			t.Error(got)
		}
	}
	ovs(t, "remove", "interface", bridge, "external_ids", markOVN)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	s.succeed(nativeCall(wire.Check, "during", ns))
	if got := s.left(); got != "veths=5 ports=5 owners [uid-web]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Del, "during", ns))
	s.must("gone uid-web")
	s.nothing()
}
