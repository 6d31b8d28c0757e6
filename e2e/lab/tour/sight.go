package tour

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// sight asks Portolan about itself, and checks what it says of packets with packets.
func (g *guide) sight(ctx context.Context) error {
	if err := g.status(ctx); err != nil {
		return err
	}
	if err := g.origins(ctx); err != nil {
		return err
	}
	return g.traces(ctx)
}

// status shows a line for each node.
func (g *guide) status(ctx context.Context) error {
	text, err := g.show(ctx, "portolan", "status")
	if err != nil {
		return err
	}
	g.gap()
	for _, m := range g.nodes {
		g.claim(holds("portolan status: node "+m.Name, "is ready", lineOf(text, m.Name, "yes")))
	}
	text, err = g.show(ctx, "portolan", "problems")
	g.gap()
	g.claim(claim{what: "portolan problems", want: "no problems", got: firstWords(text, 2), err: err})
	return nil
}

// lineOf reports whether a line of a table begins with these cells.
func lineOf(text string, cells ...string) bool {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) >= len(cells) && strings.Join(fields[:len(cells)], " ") == strings.Join(cells, " ") {
			return true
		}
	}
	return false
}

func firstWords(text string, n int) string {
	fields := strings.Fields(text)
	return strings.Join(fields[:min(n, len(fields))], " ")
}

// verdict is as much of `portolan ovn trace -o json` as the tour compares.
type verdict struct {
	TTL     int      `json:"ttl"`
	Objects []string `json:"objects"`
	Verdict struct {
		Outcome string `json:"outcome"`
	} `json:"verdict"`
}

// traces follows a packet that arrives and one that does not, and sends both.
func (g *guide) traces(ctx context.Context) error {
	g.note("A packet from zone to zone, as OVN would treat it; then the packet itself.")
	there := []string{"portolan", "ovn", "trace", namespace + "/east", namespace + "/west", fmt.Sprint(webPort)}
	if _, err := g.show(ctx, there...); err != nil {
		return err
	}
	v, err := g.verdict(ctx, there)
	left, _ := g.across()
	g.gap()
	g.claim(equal("ovn trace, east → west", fmt.Sprintf("delivered of Pod/demo/west, ttl %d", left), fmt.Sprintf("%s of %s, ttl %d", v.Verdict.Outcome, strings.Join(v.Objects, " "), v.TTL), err))
	e, err := packets.Ping(g.east.Place, g.west.Addr, 56, false, patience)
	g.claim(echoed("a real packet, east → west", e, g.west.Addr, v.TTL, err))

	g.note("No pod may be a DHCP server: what is sent from port 67 is dropped, and the trace says by which object's rule.")
	guarded := []string{"portolan", "ovn", "trace", namespace + "/east", namespace + "/west", "68", "--udp", "--source-port", "67"}
	_, _ = g.show(ctx, guarded...) // its exit status 1 says "dropped"
	v, _ = g.verdict(ctx, guarded)
	g.gap()
	g.claim(equal("ovn trace, east → west from port 67", "dropped by Node/"+g.east.node, v.Verdict.Outcome+" by "+strings.Join(v.Objects, " "), nil))
	for port, want := range map[int]string{67: "0 of 3", 1067: "3 of 3"} {
		n, err := datagrams(ctx, g.east.Place, g.west.Place, port)
		g.claim(equal(fmt.Sprintf("real datagrams, east → west from port %d", port), want, fmt.Sprintf("%d of 3", n), err))
	}
	return nil
}

// verdict asks for the same trace once more, for a program.
func (g *guide) verdict(ctx context.Context, args []string) (verdict, error) {
	text, err := g.lab(ctx, append(args, "-o", "json")...)
	var v verdict
	if bad := json.Unmarshal([]byte(text), &v); bad != nil {
		return v, bad
	}
	return v, err
}

// datagrams sends three from a port, and counts those that come to the other place's
// interface.
func datagrams(ctx context.Context, from, to packets.Place, port int) (int, error) {
	s, err := packets.Sniff(to, "eth0", func(frame []byte) bool {
		p, ok := ipv4Of(frame)
		return ok && p.protocol == udp && p.src == from.Addr && len(p.data) > 4 && int(p.data[0])<<8|int(p.data[1]) == port
	})
	if err != nil {
		return 0, err
	}
	err = from.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr, uint16(port))), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 68)))
		if err != nil {
			return err
		}
		defer conn.Close()
		for sent, tries := 0, 0; sent < 3; tries++ {
			_, err := conn.Write([]byte("offer"))
			switch {
			case err == nil:
				sent++
			case !errors.Is(err, unix.ECONNREFUSED) || tries > 6:
				return err // one that came was answered: nobody listens there; this one was not sent
			}
		}
		return nil
	})
	// What has not come by then was dropped: packets of the same path take milliseconds.
	_ = eventually(ctx, time.Second, func() (bool, error) { return s.Count() >= 3, nil })
	return len(s.Close()), err
}

// origins shows where a row comes from, and what a manifest would change.
func (g *guide) origins(ctx context.Context) error {
	g.note("Where a row comes from: the unit that says it, what that has read, and the object.")
	text, err := g.show(ctx, "portolan", "explain", namespace+"_east")
	if err != nil {
		return err
	}
	g.gap()
	g.claim(holds("portolan explain "+namespace+"_east", "names Pod/demo/east", lineOf(text, "object", "Pod/demo/east")))

	g.note("What a manifest would change, before anybody applies it, and what that costs ovn-northd.")
	plan, northbound := []string{"portolan", "plan", "-f", "e2e/demo/fifth.yaml"}, []string{"nbctl"}
	if !g.global() { // there one controller, and one database, have all rows
		plan, northbound = append(plan, "--node", g.east.node), append(northbound, "--node", g.east.node)
	}
	if text, err = g.show(ctx, plan...); err != nil {
		return err
	}
	g.gap()
	g.claim(holds("portolan plan", "adds one row, the port of demo/fifth",
		strings.Contains(text, "+ NB:Logical_Switch_Port(demo_fifth)") && strings.Count(text, "\n+ ") == 1))
	now, err := g.lab(ctx, append(northbound, "show")...)
	g.claim(claim{what: "the northbound database, after that", want: "has no such port", got: present(now, namespace+"_fifth"), err: err})
	return nil
}

func present(text, port string) string {
	if strings.Contains(text, port) {
		return "has it"
	}
	return "has no such port"
}
