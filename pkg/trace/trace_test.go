package trace

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sent is the packet of testdata/, whose texts ovn-trace 25.03 printed for the rows
// of pkg/compile/pod's scripts.
func sent() Packet {
	return Packet{
		Datapath: "node1", Inport: "default_web", EthSrc: "0a:58:0a:f4:01:05", EthDst: "0a:58:0a:f4:01:01",
		Src: netip.MustParseAddr("10.244.1.5"), Dst: netip.MustParseAddr("10.244.2.5"), Protocol: "tcp", SrcPort: 40000, DstPort: 80, TTL: 64,
	}
}

func walked(t *testing.T, name string) Zone {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return Zone{Name: "node1", Packet: sent(), Text: string(text), Hops: Parse(string(text)), Ports: map[string][]string{
		"default_web": {"Pod/default/web"}, "default_db": {"Pod/default/db"},
	}}
}

func way(z Zone) string {
	var out []string
	for _, h := range z.Hops {
		out = append(out, h.Datapath)
	}
	return strings.Join(out, " ")
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		file, way, reason string
		outcome           Outcome
		ttl               int
		decisions         string
	}{
		{"same-switch", "node1", "to port default_db", Delivered, 64, ""},
		{"other-zone", "node1 ovn_cluster_router transit_switch", "by port tstor-node2", Onward, 63,
			"route 10.244.2.0/24 via 100.88.0.3, ttl -1"},
		{"outside", "node1 ovn_cluster_router join GR_node1 ext_node1", "to the physical network, by port br-ex_node1", Delivered, 62,
			"route from 10.244.1.0/24 via 100.64.0.2, ttl -1; route 0.0.0.0/0 via 172.18.0.1, ttl -1; ct_snat(172.18.0.2)"},
		{"forged-source", "node1", "port default_web may send from", Dropped, 64, ""},
		{"nobody-there", "node1 ovn_cluster_router node1", "nobody answers", Dropped, 63, "route 10.244.1.0/24 directly, ttl -1"},
		{"rule", "node1", "an access rule of switch node1: (udp.src == {67, 547})", Dropped, 64, "drop by rule (udp.src == {67, 547})"},
	} {
		z := walked(t, c.file)
		v := z.Verdict()
		if v.Outcome != c.outcome || !strings.Contains(v.Reason, c.reason) || way(z) != c.way || z.TTL() != c.ttl {
			t.Errorf("%s: %s by way of %q, %q, ttl %d", c.file, v.Outcome, way(z), v.Reason, z.TTL())
		}
		var said []string
		for i := range z.Hops {
			for j := range z.Hops[i].Steps {
				if d := z.Hops[i].Steps[j].Decision(); d != "" {
					said = append(said, d)
				}
			}
		}
		if got := strings.Join(said, "; "); got != c.decisions {
			t.Errorf("%s: decisions %q, wanted %q", c.file, got, c.decisions)
		}
	}
}

func TestRuleIsTheDeciderNotItsStage(t *testing.T) {
	z := walked(t, "rule")
	v := z.Verdict()
	if v.Decider == nil || v.Decider.Stage != "ls_in_acl_eval" || v.Decider.UUID != "d5d63d64" {
		t.Errorf("found %+v", v.Decider)
	}
	if telling := z.Telling(); len(telling) != 1 || telling[0] != v.Decider {
		t.Errorf("telling: %+v", telling)
	}
}

func TestTruncatedAndStrangeTextIsUnknown(t *testing.T) {
	for _, text := range []string{"", "ovn-trace: unknown datapath", "ingress(dp=\"a\", inport=\"b\")\n---\n"} {
		z := Zone{Packet: sent(), Text: text, Hops: Parse(text)}
		if v := z.Verdict(); v.Outcome != Unknown || v.ExitCode() != 2 {
			t.Errorf("%q: %+v", text, v)
		}
	}
	whole, err := os.ReadFile("testdata/other-zone.txt")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole)-60; n += 11 { // any cut, but within the last output
		z := Zone{Packet: sent(), Hops: Parse(string(whole[:n]))}
		if v := z.Verdict(); v.Outcome == Delivered || v.Outcome == Dropped {
			t.Fatalf("cut at %d: %+v", n, v)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(_ *testing.T, text string) {
		z := Zone{Packet: sent(), Text: text, Hops: Parse(text)}
		z.Verdict()
		z.Telling()
		z.Next()
	})
}

func TestPathGoesOnInTheNextZone(t *testing.T) {
	var asked []string
	var entered Packet
	path, err := Follow(t.Context(), Start{Node: "node1", Packet: sent()}, func(_ context.Context, node string, p Packet) (Zone, error) {
		asked = append(asked, node)
		if node == "node1" {
			return walked(t, "other-zone"), nil
		}
		entered = p
		z := walked(t, "same-switch")
		z.Name, z.Packet = node, p
		return z, nil
	})
	if err != nil || strings.Join(asked, " ") != "node1 node2" {
		t.Fatal(asked, err)
	}
	want := sent()
	want.Datapath, want.Inport, want.TTL = "transit_switch", "tstor-node1", 63
	want.EthSrc, want.EthDst = "0a:58:64:58:00:02", "0a:58:64:58:00:03"
	if entered != want {
		t.Errorf("it entered as %+v, wanted %+v", entered, want)
	}
	if path.Verdict.Outcome != Delivered || len(path.Objects) != 1 || path.Objects[0] != "Pod/default/db" || path.TTL != 63 {
		t.Errorf("found %+v", path)
	}
}

func TestPathEndsWhereNobodyAnswers(t *testing.T) {
	down := errors.New("connection refused")
	path, err := Follow(t.Context(), Start{Node: "node1", Packet: sent()}, func(_ context.Context, node string, _ Packet) (Zone, error) {
		if node == "node1" {
			return walked(t, "other-zone"), nil
		}
		return Zone{}, down
	})
	if err != nil || path.Verdict.ExitCode() != 2 || !strings.Contains(path.Verdict.Reason, "node2") || !strings.Contains(path.Verdict.Reason, "refused") {
		t.Errorf("%+v, %v", path.Verdict, err)
	}
	if _, err := Follow(t.Context(), Start{Node: "node1", Packet: sent()}, func(context.Context, string, Packet) (Zone, error) { return Zone{}, down }); !errors.Is(err, down) {
		t.Errorf("the first zone: %v", err)
	}
	path, err = Follow(t.Context(), Start{Node: "node1", Packet: sent()}, func(context.Context, string, Packet) (Zone, error) { return walked(t, "other-zone"), nil })
	if err != nil || !strings.Contains(path.Verdict.Reason, "loop") {
		t.Errorf("a loop: %+v, %v", path.Verdict, err)
	}
}

func TestForgedSourceIsByThePod(t *testing.T) {
	path, err := Follow(t.Context(), Start{Node: "node1", Packet: sent()}, func(context.Context, string, Packet) (Zone, error) { return walked(t, "forged-source"), nil })
	if err != nil || path.Verdict.ExitCode() != 1 || strings.Join(path.Objects, " ") != "Pod/default/web" {
		t.Errorf("%+v, %v", path, err)
	}
}

func TestPacketIsValidated(t *testing.T) {
	if err := sent().Validate(); err != nil {
		t.Error(err)
	}
	if got := sent().Flow(); got != `inport == "default_web" && eth.src == 0a:58:0a:f4:01:05 && eth.dst == 0a:58:0a:f4:01:01 && `+
		`ip4.src == 10.244.1.5 && ip4.dst == 10.244.2.5 && ip.ttl == 64 && tcp.src == 40000 && tcp.dst == 80` {
		t.Error(got)
	}
	for name, spoil := range map[string]func(*Packet){
		"family":   func(p *Packet) { p.Src = netip.MustParseAddr("fd00::1") },
		"port":     func(p *Packet) { p.Inport = `x" || 1` },
		"mac":      func(p *Packet) { p.EthDst = "0a:58:0a:f4:01:01 || 1" },
		"protocol": func(p *Packet) { p.Protocol = "tcp.src == 1 ||" },
		"number":   func(p *Packet) { p.DstPort = 70000 },
		"ttl":      func(p *Packet) { p.TTL = 0 },
	} {
		p := sent()
		spoil(&p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted %+v", name, p)
		}
	}
}
