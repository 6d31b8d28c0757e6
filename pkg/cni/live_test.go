package cni_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// liveRig is a rig with networks, and what was said of its pod.
type liveRig struct {
	*rig
	networks *cnitest.Networks
	journal  *cnitest.Journal
	status   string // interfaces with their addresses, as last told
	reports  int
	told     string
	repairs  []cni.Repair
}

func newLiveRig(t *testing.T) *liveRig {
	t.Helper()
	l := &liveRig{journal: &cnitest.Journal{}}
	var err error
	if l.networks, err = cnitest.NewNetworks(map[string]string{"blue": "10.20.0.0/24", "red": "10.21.0.0/24"}); err != nil {
		t.Fatal(err)
	}
	l.rig = newRig(t, func(c *cni.Config) {
		c.Networks, c.Journal = l.networks, l.journal
		c.Status = func(_ cni.Pod, all []cni.Attachment) { l.status, l.reports = texts(all), l.reports+1 }
		c.Tell = func(_ cni.Pod, message string) { l.told = message }
		c.Repaired = func(r cni.Repair) { l.repairs = append(l.repairs, r) }
	})
	return l
}

func texts(all []cni.Attachment) string {
	var out []string
	for _, a := range all {
		out = append(out, fmt.Sprintf("%s=%s", a.IfName, a.Addresses[0].Addr()))
	}
	return strings.Join(out, " ")
}

func selecting(selection string) cni.Pod {
	p := web()
	p.Selection = selection
	return p
}

// native is a call by our own conflist.
func native(command, sandbox string) *wire.Call {
	c := call(command, sandbox)
	c.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
	return c
}

// selects changes the pod's annotation, and has the agent see it.
func (l *liveRig) selects(t *testing.T, selection string) error {
	t.Helper()
	l.pods.Set(selecting(selection))
	return l.Prepare(t.Context(), selecting(selection))
}

func (l *liveRig) want(t *testing.T, status string, owners map[string]string) {
	t.Helper()
	if l.status != status {
		t.Errorf("the status is %q, want %q (told: %q)", l.status, status, l.told)
	}
	for name, want := range owners {
		n, _ := l.networks.Named(name)
		if got := fmt.Sprint(n.Addresses.Owners()); got != want {
			t.Errorf("network %s has owners %s, want %s", name, got, want)
		}
	}
	ports, _ := l.ports.List(t.Context())
	if got, want := len(ports), len(strings.Fields(status)); got != want {
		t.Errorf("%d ports, want %d: %+v", got, want, ports)
	}
	for _, p := range ports {
		if p.Unfinished || p.Netns != "/run/netns/one" || !p.Native {
			t.Errorf("port %+v", p)
		}
	}
}

func TestLive(t *testing.T) {
	l := newLiveRig(t)
	l.pods.Set(selecting("blue@net1"))
	l.must(t, native(wire.Add, "one"))
	l.want(t, "eth0=10.244.1.3 net1=10.20.0.3", map[string]string{"blue": "[uid-web shop/blue]"})
	was, _ := l.ports.List(t.Context())
	for _, step := range []struct{ selection, status, blue, red string }{
		{"blue@net1", "eth0=10.244.1.3 net1=10.20.0.3", "[uid-web shop/blue]", "[]"},
		{"blue@net1 red@net2", "eth0=10.244.1.3 net1=10.20.0.3 net2=10.21.0.3", "[uid-web shop/blue]", "[uid-web shop/red]"},
		{"red@net2 blue@net1", "eth0=10.244.1.3 net1=10.20.0.3 net2=10.21.0.3", "[uid-web shop/blue]", "[uid-web shop/red]"},
		// Of two by one definition the first goes: the second keeps what it has.
		{"blue@net1 blue@net3", "eth0=10.244.1.3 net1=10.20.0.3 net3=10.20.0.4", "[uid-web shop/blue uid-web shop/blue/1]", "[]"},
		{"blue@net3", "eth0=10.244.1.3 net3=10.20.0.4", "[uid-web shop/blue/1]", "[]"},
		{"blue@net3=10.20.0.77", "eth0=10.244.1.3 net3=10.20.0.77", "[uid-web shop/blue]", "[]"},
		{"blue@net3=0a:58:00:00:00:09", "eth0=10.244.1.3 net3=10.20.0.5", "[uid-web shop/blue/1]", "[]"},
		{"", "eth0=10.244.1.3", "[]", "[]"},
	} {
		if err := l.selects(t, step.selection); err != nil {
			t.Fatalf("%q: %v", step.selection, err)
		}
		l.want(t, step.status, map[string]string{"blue": step.blue, "red": step.red})
		if got := texts(l.publisher.All("uid-web")); len(strings.Fields(got)) != len(strings.Fields(step.status)) {
			t.Errorf("%q: published %s", step.selection, got)
		}
		if l.told != "" {
			t.Errorf("%q: told %q", step.selection, l.told)
		}
	}
	now, _ := l.ports.List(t.Context())
	if i := slices.IndexFunc(was, func(p cni.Port) bool { return p.IfName == "eth0" }); len(now) != 1 || now[0].Name != was[i].Name {
		t.Errorf("eth0 was touched: %v, %v", was, now)
	}
	l.must(t, native(wire.Del, "one"))
	l.state(t, nothingLeft)
}

// TestLiveKeepsWhatRuns: what cannot be done is told, and nothing that runs is touched.
func TestLiveKeepsWhatRuns(t *testing.T) {
	for _, c := range []struct {
		name, selection, told string
		change                func(l *liveRig)
		retried               bool
	}{
		{name: "an annotation that cannot be read", selection: "blue@net1 red", told: `"red" names no interface; the pod runs, and what it has stays as it is`},
		{name: "one interface name twice", selection: "blue@net1 red@net1", told: "net1 is asked for by shop/blue and by shop/red"},
		{name: "one interface twice", selection: "blue@net1 blue@net1", told: "net1 is asked for by shop/blue and by shop/blue/1"},
		{name: "the default network's name", selection: "blue@net1 red@eth0", told: "eth0 is asked for by default and by shop/red"},
		{name: "an address out of range", selection: "blue@net1=10.99.0.1", told: "net1 (shop/blue): ", retried: true},
		{name: "an address of another's", selection: "blue@net1=10.20.0.9", told: "10.20.0.9 that is asked for is held by other", retried: true,
			change: func(l *liveRig) {
				n, _ := l.networks.Named("blue")
				_, _ = n.Addresses.(cni.PoolAddresses).Pool.AllocateOf("other", []netip.Prefix{netip.MustParsePrefix("10.20.0.9/32")})
			}},
		{name: "a definition that is not there", selection: "blue@net1 green@net2", told: "net2 (shop/green): NetworkAttachmentDefinition shop/green does not exist"},
		{name: "a device", selection: "blue@net1 red@net2", told: "needs a device of example.com/vf, and devices are allocated when a pod is admitted",
			change: func(l *liveRig) {
				n, _ := l.networks.Named("red")
				n.Resource = "example.com/vf"
				l.networks.Change("red", &n)
			}},
		{name: "the default route", selection: "blue@net1 red@net2=default", told: "default-route is set when a sandbox is made"},
		{name: "an interface that the pod has made", selection: "blue@net1 red@net2", told: "net2 (shop/red): ", retried: true,
			change: func(l *liveRig) {
				_ = l.links.Create(cni.Pair{Device: cni.Device{Host: "own"}, Endpoint: cni.Endpoint{Netns: "/run/netns/one", IfName: "net2"}})
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLiveRig(t)
			l.pods.Set(selecting("blue@net1"))
			l.must(t, native(wire.Add, "one"))
			before, _ := l.ports.List(t.Context())
			if c.change != nil {
				c.change(l)
			}
			if err := l.selects(t, c.selection); (err != nil) != c.retried {
				t.Errorf("tried again: %v", err)
			}
			if !strings.Contains(l.told, c.told) {
				t.Errorf("told %q, want %q", l.told, c.told)
			}
			if err := l.Compare(t.Context()); err != nil || l.status != "eth0=10.244.1.3 net1=10.20.0.3" {
				t.Errorf("compared: %v, the status is %q", err, l.status)
			}
			if after, _ := l.ports.List(t.Context()); fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("ports were %v and are %v", before, after)
			}
			if err := l.selects(t, "blue@net1"); err != nil || l.told != "" {
				t.Errorf("back to what it was: %v, told %q", err, l.told)
			}
			l.want(t, "eth0=10.244.1.3 net1=10.20.0.3", map[string]string{"red": "[]"})
		})
	}
}

// TestLiveWaits: a definition that comes later is attached then.
func TestLiveWaits(t *testing.T) {
	l := newLiveRig(t)
	l.pods.Set(selecting("blue@net1"))
	l.must(t, native(wire.Add, "one"))
	if err := l.selects(t, "green@net2 red@net3"); err != nil {
		t.Fatal(err)
	}
	l.want(t, "eth0=10.244.1.3 net3=10.21.0.3", map[string]string{"blue": "[]"})
	pool, _ := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix("10.22.0.0/24")}})
	l.networks.Change("green", &cni.Network{Name: "green", Addresses: cni.PoolAddresses{Pool: pool}})
	if err := l.selects(t, "green@net2 red@net3"); err != nil || l.told != "" {
		t.Fatal(err, l.told)
	}
	l.want(t, "eth0=10.244.1.3 net2=10.22.0.3 net3=10.21.0.3", map[string]string{"green": "[uid-web shop/green]"})
}

// TestLiveIsNotMultus: what another caller has attached is that caller's to change.
func TestLiveIsNotMultus(t *testing.T) {
	l := newLiveRig(t)
	l.pods.Set(selecting(""))
	l.must(t, call(wire.Add, "one"))
	before, _ := l.ports.List(t.Context())
	if err := l.selects(t, "blue@net1"); err != nil {
		t.Fatal(err)
	}
	if after, _ := l.ports.List(t.Context()); fmt.Sprint(before) != fmt.Sprint(after) || l.reports != 0 {
		t.Errorf("ports were %v and are %v; %d reports", before, after, l.reports)
	}
}

// TestNewSandboxForgetsWhatIsNotAsked: the annotation changes while no sandbox is
// there, and the next call makes what it says then.
func TestNewSandboxForgetsWhatIsNotAsked(t *testing.T) {
	l := newLiveRig(t)
	l.pods.Set(selecting("blue@net1 red@net2 blue@net3"))
	l.must(t, native(wire.Add, "zero"))
	l.must(t, native(wire.Del, "zero"))
	if err := l.selects(t, "blue@net3"); err != nil {
		t.Fatal(err)
	}
	l.must(t, native(wire.Add, "one"))
	l.want(t, "eth0=10.244.1.3 net3=10.20.0.4", map[string]string{"blue": "[uid-web shop/blue/1]", "red": "[]"})
}

// TestLiveOverRestarts has the agent start anew between any two changes, and after an
// attach and a detach that failed half way.
func TestLiveOverRestarts(t *testing.T) {
	l := newLiveRig(t)
	l.pods.Set(selecting("blue@net1 blue@net2"))
	l.must(t, native(wire.Add, "one"))
	again := func(selection string) error {
		l.pods.Set(selecting(selection))
		l.fresh(t)
		return errors.Join(l.Prepare(t.Context(), selecting(selection)), l.Compare(t.Context()))
	}
	for _, step := range []struct{ selection, status, blue, red string }{
		{"blue@net1 blue@net2", "eth0=10.244.1.3 net1=10.20.0.3 net2=10.20.0.4", "[uid-web shop/blue uid-web shop/blue/1]", "[]"},
		{"blue@net2", "eth0=10.244.1.3 net2=10.20.0.4", "[uid-web shop/blue/1]", "[]"},
		{"blue@net2 red@net1", "eth0=10.244.1.3 net2=10.20.0.4 net1=10.21.0.3", "[uid-web shop/blue/1]", "[uid-web shop/red]"},
		{"red@net1", "eth0=10.244.1.3 net1=10.21.0.3", "[]", "[uid-web shop/red]"},
	} {
		if err := again(step.selection); err != nil {
			t.Fatalf("%q: %v", step.selection, err)
		}
		l.want(t, step.status, map[string]string{"blue": step.blue, "red": step.red})
	}
	for _, stage := range []string{cni.StageAllocate, cni.StageCreateVeth, cni.StageCreatePort, cni.StageConfigure, cni.StageInstalled, cni.StageAnnounce, cni.StageAnswer} {
		l.killedAt(t, stage, "red@net1 blue@net5", func() {
			if err := again("red@net1 blue@net5"); err != nil {
				t.Fatalf("after the end at %s: %v", stage, err)
			}
			l.want(t, "eth0=10.244.1.3 net1=10.21.0.3 net5="+lastOf(l.status), map[string]string{"red": "[uid-web shop/red]"})
		})
		if err := l.selects(t, "red@net1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []string{cni.StageRemoveVeth, cni.StageRemovePort, cni.StageFreeAddress} {
		if err := l.selects(t, "red@net1 blue@net5"); err != nil {
			t.Fatal(err)
		}
		l.killedAt(t, stage, "red@net1", func() {
			if err := again("red@net1"); err != nil {
				t.Fatalf("after the end at %s: %v", stage, err)
			}
			l.want(t, "eth0=10.244.1.3 net1=10.21.0.3", map[string]string{"blue": "[]", "red": "[uid-web shop/red]"})
		})
	}
}

// fresh starts the agent anew, with nothing in memory.
func (l *liveRig) fresh(t *testing.T) {
	t.Helper()
	for _, n := range l.networks.All() {
		n.Addresses = cni.PoolAddresses{Pool: emptied(t, n.Addresses.(cni.PoolAddresses).Pool), Routes: []netip.Prefix{}}
		l.networks.Change(n.Name, &n)
	}
	l.pool = emptied(t, l.pool)
	l.config.Pool = l.pool
	heard := new(cnitest.Publisher)
	l.publisher, l.config.Publisher = heard, heard
	l.start(t)
	for _, p := range l.pods.List() {
		if n := heard.Told(p.UID); n > 1 {
			t.Errorf("a start told %d times what %s has: each but the last is less than it has", n, p)
		}
	}
}

func emptied(t *testing.T, p *alloc.Pool) *alloc.Pool {
	t.Helper()
	out, err := alloc.NewPool(alloc.PoolConfig{Subnets: p.Subnets()})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func lastOf(status string) string { return status[strings.LastIndexByte(status, '=')+1:] }

// written waits until a port that is being made is in OVS.
func (l *liveRig) written() {
	for range 5000 {
		list, _ := l.ports.List(context.Background())
		if slices.ContainsFunc(list, func(p cni.Port) bool { return p.Unfinished }) {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// killedAt ends the agent in a stage of what an annotation asks for: nothing that it
// would do afterwards, undoing included, happens.
func (l *liveRig) killedAt(t *testing.T, stage, selection string, then func()) {
	t.Helper()
	end := make(chan struct{})
	l.config.AtStage = func(command, at string) {
		if command == "LIVE" && at == stage {
			if at == cni.StageConfigure {
				l.written() // it is on its way, and would come after the end
			}
			close(end)
			select {} // for ever: as the goroutine of a process that was killed
		}
	}
	l.start(t)
	l.pods.Set(selecting(selection))
	agent := l.Agent
	ended := make(chan error, 1)
	go func() { ended <- agent.Prepare(context.Background(), selecting(selection)) }()
	select {
	case <-end:
	case err := <-ended:
		t.Fatalf("%q came to its end without %s: %v, told %q", selection, stage, err, l.told)
	}
	l.config.AtStage = nil
	then()
}
