//go:build kernel

package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// referencePlugins is where Debian's package containernetworking-plugins has them.
const referencePlugins = "/usr/lib/cni"

// mixedNetworks are those of a pod whose selection lists words: net0 to net3 of ours,
// "tuned" is net1 with a plugin after it, others are plugins' alone.
type mixedNetworks struct{ *fourNetworks }

// chains are configuration lists of plugins of others; %s is the test's directory.
func chains(dir string) map[string]cni.Chain {
	host := fmt.Sprintf(`{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.90.0.0/24"}]]}`, dir+"/leases")
	list := func(plugins string, values map[string]json.RawMessage) cni.Chain {
		return cni.Chain{List: []byte(`{"cniVersion":"1.0.0","name":"other","plugins":[` + plugins + `]}`), Values: values}
	}
	bridge := `{"type":"bridge","bridge":"ptt-br0","isGateway":true,"ipam":` + host + `}`
	return map[string]cni.Chain{
		"bridge": list(bridge, nil),
		"gated":  list(strings.Replace(bridge, `]]}`, `]],"routes":[{"dst":"0.0.0.0/0"}]}`, 1), nil),
		// Not IFNAME: CHECK of tuning 1.1 does not put the name there.
		"tuned":     list(`{"type":"tuning","sysctl":{"net.ipv4.conf.net3.log_martians":"1"}}`, nil),
		"limited":   list(bridge+`,{"type":"bandwidth","capabilities":{"bandwidth":true}}`, map[string]json.RawMessage{"bandwidth": []byte(`{"ingressRate":8000000,"ingressBurst":80000}`)}),
		"broken":    list(bridge+`,{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.nonsense":"1"}}`, nil),
		"macvlan":   list(`{"type":"macvlan","master":"ptt-m0","mode":"bridge"}`, nil),
		"device":    list(`{"type":"host-device","device":"ptt-d0"}`, nil),
		"function":  list(fmt.Sprintf(`{"type":"sriov","socket":%q}`, dir+"/cni.sock"), nil),
		"absent":    list(`{"type":"no-such-plugin"}`, nil),
		"elsewhere": list(`{"type":"../../bin/sh"}`, nil),
	}
}

func (m mixedNetworks) Plan(p cni.Pod) ([]cni.Wish, error) {
	var out []cni.Wish
	for n, word := range strings.Fields(p.Selection) {
		name, way := strings.CutSuffix(word, "!")
		out = append(out, cni.Wish{Pod: p, Key: "shop/" + name, IfName: fmt.Sprint("net", n+1), DefaultRoute: way})
	}
	return out, nil
}

func (m mixedNetworks) Attach(w cni.Wish) (cni.Network, error) {
	name := strings.TrimPrefix(w.Key, "shop/")
	if os.Getenv(envGone) != "" {
		return cni.Network{}, errors.New("the definition is gone")
	}
	if n, ok := m.fourNetworks.Named(name); ok {
		return n, nil
	}
	dir := os.Getenv(envChains)
	n := cni.Network{Name: "other", Chain: chains(dir)[name]}
	if name == "function" {
		n.Resource = "example.org/soft"
	}
	if name == "leased" {
		host := fmt.Sprintf(`{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.91.0.0/24","gateway":"10.91.0.1"}]],"routes":[{"dst":"10.92.0.0/16"}]}`, dir+"/leases")
		return cni.Network{Name: "leased", MTU: 1400, Addresses: noAddresses{},
			Lease: cni.Chain{List: []byte(`{"cniVersion":"1.0.0","name":"leased","plugins":[{"type":"host-local","ipam":` + host + `}]}`)}}, nil
	}
	if name == "tuned" {
		n, _ = m.Named("net1")
		n.Chain = chains(dir)[name]
	}
	return n, nil
}

// noAddresses is a network that gives none.
type noAddresses struct{}

func (noAddresses) Give(_ context.Context, w cni.Wish) (cni.Grant, error) {
	return cni.Finish(w, cni.Grant{}, nil, []netip.Prefix{}), nil
}

func (n noAddresses) Keep(w cni.Wish, given []netip.Prefix) (cni.Grant, error) {
	if len(given) > 0 {
		return cni.Grant{}, errors.New("it gives none")
	}
	return n.Give(context.Background(), w)
}

func (noAddresses) Free(string) bool { return false }

func (noAddresses) Owners() []string { return nil }

// Named implements cni.Networks.
func (m mixedNetworks) Named(name string) (cni.Network, bool) {
	if name == "leased" {
		return cni.Network{Name: name, MTU: 1400, Addresses: noAddresses{}}, true
	}
	return m.fourNetworks.Named(name)
}

// envChains is set in a server whose plugins are run: the directory of what they keep.
const envChains = "PTT_CHAINS"

// envGone is set in a server that knows no definition any more.
const envGone = "PTT_GONE"

func statusWords(a cni.Attachment) string {
	if a.Result == nil {
		return a.Key + " <nothing>"
	}
	var ips []string
	for _, ip := range a.Result.IPs {
		ips = append(ips, ip.Address.String())
	}
	return fmt.Sprintf("%s %s %v", a.Key, a.IfName, ips)
}

// mixedServer serves a pod with a selection of words.
func mixedServer(t *testing.T, selection string) *server {
	dir := t.TempDir()
	t.Setenv(envChains, dir)
	p := web()
	p.Selection = selection
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "ptt-br0").Run() })
	return startServer(t, serverConfig{Socket: dir + "/cni.sock", Pods: []cni.Pod{p}, Plugins: referencePlugins,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
}

// others lists what plugins of others have left: their leases, ports of their bridge,
// records of ours and libcni's.
func (s *server) others() string {
	s.t.Helper()
	dir := filepath.Dir(s.config.Socket)
	count := func(pattern string) int {
		files, err := filepath.Glob(dir + pattern)
		if err != nil {
			s.t.Fatal(err)
		}
		return len(slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "lock") || strings.Contains(f, "last_reserved") }))
	}
	ports, _ := exec.Command("ip", "-o", "link", "show", "master", "ptt-br0").Output()
	return fmt.Sprintf("leases=%d ports=%d records=%d results=%d", count("/leases/*/*"), strings.Count(string(ports), "\n"),
		count("/plugins/*.json"), count("/plugins/results/*/results/*"))
}

const noOthers = "leases=0 ports=0 records=0 results=0"

// TestKernelBridgeBeside attaches a network of ours, one of the reference bridge with
// host-local, and one of ours with tuning after it, in one call, and takes them away.
func TestKernelBridgeBeside(t *testing.T) {
	s := mixedServer(t, "net0 bridge tuned")
	ns := sandbox(t, "mixed")
	first := s.succeed(nativeCall(wire.Add, "mixed", ns))
	if !strings.Contains(first, "10.244.1.3/24") || strings.Contains(first, "10.90") {
		t.Errorf("the runtime is told %s: the default network is its only concern", first)
	}
	out := in(t, ns, "ip", "-4", "addr") + in(t, ns, "sysctl", "-n", "net.ipv4.conf.net3.log_martians")
	for _, want := range []string{"inet 10.244.1.3/24", "inet 10.20.0.3/24", "inet 10.90.0.2/24", "inet 10.21.0.3/24", "\n1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	in(t, ns, "ping", "-c1", "-W2", "10.90.0.1")
	if got := s.must("status"); got != "default eth0 [10.244.1.3/24], shop/net0 net1 [10.20.0.3/24], shop/bridge net2 [10.90.0.2/24], shop/tuned net3 [10.21.0.3/24]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Check, "mixed", ns))
	if again := s.succeed(nativeCall(wire.Add, "mixed", ns)); again != first {
		t.Errorf("the second ADD says %s, the first %s", again, first)
	}
	if got := s.others() + "; " + s.left(); got != "leases=1 ports=1 records=2 results=2; veths=3 ports=3 owners [uid-web]" {
		t.Error(got)
	}
	in(t, ns, "ip", "link", "del", "net2")
	if reply, err := s.call(nativeCall(wire.Check, "mixed", ns)); err != nil || reply.Error == nil || !strings.Contains(reply.Error.Msg, "interface net2 by definition shop/bridge") {
		t.Errorf("CHECK of an interface that is gone: %v, %v", reply, err)
	}
	s.succeed(nativeCall(wire.Add, "mixed", ns)) // which makes it anew
	s.succeed(nativeCall(wire.Check, "mixed", ns))
	s.succeed(nativeCall(wire.Del, "mixed", ns))
	s.must("gone uid-web")
	if got := s.others() + "; " + s.left(); got != noOthers+"; "+clean {
		t.Error(got)
	}
}

// mixed is what most of these tests attach: in this order.
const mixed = "bridge net0 leased tuned"

// TestKernelPluginsFail has the last plugin of the last chain fail: all that was made
// before it is undone, and the next call makes everything.
func TestKernelPluginsFail(t *testing.T) {
	s := mixedServer(t, mixed+" broken")
	ns := sandbox(t, "fail")
	for range 2 { // a runtime repeats it
		reply, err := s.call(nativeCall(wire.Add, "fail", ns))
		if err != nil || reply.Error == nil || !strings.Contains(reply.Error.Error(), `interface net5 by definition shop/broken: plugin type="tuning" failed (add)`) {
			t.Fatalf("%+v, %v", reply, err)
		}
		if got := s.others() + "; " + s.left(); got != noOthers+"; veths=0 ports=0 owners [uid-web]" {
			t.Error(got)
		}
	}
	if out := in(t, ns, "ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("left in the sandbox:\n%s", out)
	}
}

// TestKernelPluginsRefused names a plugin that is a path, and one that is not there:
// nothing of the chain is run.
func TestKernelPluginsRefused(t *testing.T) {
	for word, want := range map[string]string{
		"elsewhere": `plugin type "../../bin/sh" is no name`,
		"absent":    `plugin "no-such-plugin" is not in the node's plugin directory /usr/lib/cni: install it there`,
	} {
		s := mixedServer(t, "bridge "+word)
		reply, err := s.call(nativeCall(wire.Add, word, sandbox(t, word)))
		if err != nil || reply.Error == nil || !strings.Contains(reply.Error.Error(), "shop/"+word+": "+want) {
			t.Fatalf("%s: %+v, %v", word, reply, err)
		}
		if got := s.others() + "; " + s.left(); got != noOthers+"; veths=0 ports=0 owners [uid-web]" {
			t.Error(got)
		}
		s.stop()
	}
}

// TestKernelPluginsGone deletes the definitions, and the sandbox's namespace too: DEL
// undoes by the record; so does GC.
func TestKernelPluginsGone(t *testing.T) {
	for _, command := range []string{wire.Del, wire.GC} {
		s := mixedServer(t, mixed)
		id := "gone" + strings.ToLower(command)
		ns := sandbox(t, id)
		s.succeed(nativeCall(wire.Add, id, ns))
		t.Setenv(envGone, "1")
		s = s.again("")
		_ = exec.Command("ip", "netns", "del", "ptt-"+id).Run()
		c := nativeCall(command, id, ns)
		if command == wire.GC {
			c.Config = []byte(`{"cniVersion":"1.1.0","name":"portolan","type":"portolan-cni","multiNetwork":"native","cni.dev/valid-attachments":[]}`)
		}
		s.succeed(c)
		s.must("gone uid-web")
		if got := s.others() + "; " + s.left(); got != noOthers+"; "+clean {
			t.Errorf("%s: %s", command, got)
		}
		s.stop()
		t.Setenv(envGone, "")
	}
}

// TestKernelLeased has host-local give the addresses of an interface of ours.
func TestKernelLeased(t *testing.T) {
	s := mixedServer(t, "leased")
	ns := sandbox(t, "leased")
	s.succeed(nativeCall(wire.Add, "leased", ns))
	out := in(t, ns, "ip", "-4", "addr") + in(t, ns, "ip", "route")
	for _, want := range []string{"inet 10.91.0.2/24", "10.92.0.0/16 via 10.91.0.1 dev net1"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	s.succeed(nativeCall(wire.Check, "leased", ns))
	s = s.again("") // a restart keeps it
	s.succeed(nativeCall(wire.Check, "leased", ns))
	s.succeed(nativeCall(wire.Add, "leased", ns))
	if got := s.must("status"); got != "default eth0 [10.244.1.3/24], shop/leased net1 [10.91.0.2/24]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Del, "leased", ns))
	if got := s.others() + "; " + s.left(); got != noOthers+"; veths=0 ports=0 owners [uid-web]" {
		t.Errorf("after DEL the lease is the plugin's again: %s", got)
	}
}

// TestKernelPluginsMove gives pods what there is one of: a link of the node by
// host-device, and one on top of another by macvlan; both come back.
func TestKernelPluginsMove(t *testing.T) {
	for link, peer := range map[string]string{"ptt-d0": "ptt-d1", "ptt-m0": "ptt-m1"} {
		if out, err := exec.Command("ip", "link", "add", link, "type", "veth", "peer", "name", peer).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", link).Run() })
	}
	s := mixedServer(t, "device macvlan limited")
	ns := sandbox(t, "move")
	s.succeed(nativeCall(wire.Add, "move", ns))
	out := in(t, ns, "ip", "-d", "link")
	for _, want := range []string{"alias ptt-d0", "net1@", "net2@", "macvlan mode bridge", "net3@"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if out, err := exec.Command("ip", "link", "show", "ptt-d0").CombinedOutput(); err == nil {
		t.Errorf("the link is on the node still: %s", out)
	}
	qdiscs, _ := exec.Command("tc", "qdisc").CombinedOutput()
	if !strings.Contains(string(qdiscs), "tbf") {
		t.Errorf("bandwidth, which declares the capability, was not given it: %s", qdiscs)
	}
	s.succeed(nativeCall(wire.Del, "move", ns))
	if out, err := exec.Command("ip", "link", "show", "ptt-d0").CombinedOutput(); err != nil {
		t.Errorf("the link did not come back: %s", out)
	}
	if got := s.others(); got != noOthers {
		t.Error(got)
	}
}

// TestKernelPluginsKilled kills the server at every step of a call that makes or undoes
// interfaces of ours and of others.
func TestKernelPluginsKilled(t *testing.T) {
	for command, stages := range map[string][]string{
		wire.Add: {cni.StageFindPod, cni.StageRunPlugins + "/1", cni.StageAllocate, cni.StageCreateVeth, cni.StageCreatePort, cni.StageConfigure,
			cni.StageInstalled, cni.StageAnnounce, cni.StageRunPlugins + "/2", cni.StageRunPlugins + "/3"},
		wire.Del: {cni.StageWaitTurn, cni.StageUndoPlugins + "/1", cni.StageUndoPlugins + "/2", cni.StageRemoveVeth, cni.StageRemovePort, cni.StageUndoPlugins + "/3", cni.StageAnswer},
	} {
		for _, stage := range stages {
			t.Run(command+"/"+stage, func(t *testing.T) {
				s := mixedServer(t, mixed)
				first, second := sandbox(t, "k1"), sandbox(t, "k2")
				if command == wire.Del {
					s.succeed(nativeCall(wire.Add, "k1", first))
				}
				s = s.again(command + "/" + stage)
				if reply, err := s.call(nativeCall(command, "k1", first)); err == nil {
					t.Fatalf("it survived: %+v", reply)
				}
				s = s.again("")
				if command == wire.Add { // a runtime may also repeat it
					s.succeed(nativeCall(wire.Add, "k1", first))
					s.succeed(nativeCall(wire.Check, "k1", first))
				}
				s.succeed(nativeCall(wire.Del, "k1", first))
				if got := s.others(); got != noOthers {
					t.Error(got)
				}
				s.succeed(nativeCall(wire.Add, "k2", second))
				s.succeed(nativeCall(wire.Check, "k2", second))
				if got := s.others() + "; " + s.left(); got != "leases=2 ports=1 records=3 results=3; veths=4 ports=4 owners [uid-web]" {
					t.Error(got)
				}
				s.succeed(nativeCall(wire.Del, "k2", second))
				s.must("gone uid-web")
				if got := s.others() + "; " + s.left(); got != noOthers+"; "+clean {
					t.Error(got)
				}
				s.stop()
			})
		}
	}
}

// TestKernelPluginsWayOut asks for the default route of a plugin's interface, beside one
// that has its own, and of one of ours.
func TestKernelPluginsWayOut(t *testing.T) {
	for selection, want := range map[string]string{
		"gated bridge!": "default via 10.90.0.1 dev net2",
		"gated! bridge": "default via 10.90.0.1 dev net1",
		"gated net0!":   "default via 10.20.0.1 dev net2",
		"gated net0":    "default via 10.244.1.1 dev eth0",
	} {
		s := mixedServer(t, selection)
		id := "way" + strings.NewReplacer(" ", "", "!", "x").Replace(selection)
		ns := sandbox(t, id)
		s.succeed(nativeCall(wire.Add, id, ns))
		if out := in(t, ns, "ip", "route", "show", "default"); !strings.HasPrefix(out, want) || strings.Count(out, "\n") > 1 {
			t.Errorf("%s: %s", selection, out)
		}
		s.succeed(nativeCall(wire.Del, id, ns))
		s.stop()
	}
}
