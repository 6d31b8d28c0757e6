// Package faults breaks one thing of a lab that is up, while packets are counted,
// and tells what it cost: how many were lost on each path, how long until all was
// well again, and what then was different from before.
//
//	Rig ── places, meters ─┐
//	Fault ── Do ───────────┼─> Run ─> Result ─> Report (the table of `make test`)
//	state.Take ── Diff ────┘
//
// A bare bridge beside the paths carries the same flow through the same vswitchd:
// what it loses too, the machine or vswitchd has lost, and not OVN or Portolan.
package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/bare"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// Path is two places that a flow joins.
type Path struct {
	Name     string
	From, To packets.Place
}

// Rig is where faults are done: a lab, the node that is hit, and the paths whose
// packets are counted.
type Rig struct {
	Lab    func(ctx context.Context, args ...string) (string, error) // runs bin/lab
	Node   string                                                    // the node that is hit
	Others []string                                                  // nodes that must be as they were, too
	All    []string                                                  // nodes on which the manager may be
	Paths  []Path
	Rate   int // datagrams a second on each path; 0: 1,000
	// Port is where Serve answers in the last path's To; 0: no connections are opened.
	Port int
	Log  func(format string, args ...any)
	// Live says whether all that the node had is up; nil: every daemon, the agent
	// ready, and OVN in step.
	Live func(ctx context.Context, r *Rig) error
}

const defaultRate = 1000

// nodes are all that a fault is compared on.
func (r *Rig) nodes() []string { return append([]string{r.Node}, r.Others...) }

// meters are the flows under way.
type meters struct {
	flows []*packets.Flow
	talk  *packets.Talk
	open  *packets.Opener
	bare  []*packets.Flow // one on each node of the rig
	wires []*bare.Bridge
}

// start starts every meter, and returns when each has been heard.
func (r *Rig) start(ctx context.Context, f Fault) (*meters, error) {
	m := &meters{}
	if err := r.favour(); err != nil {
		return nil, err
	}
	rate := r.Rate
	if rate == 0 {
		rate = defaultRate
	}
	on := r.nodes()
	if f.Reboots {
		on = r.Others
	}
	for _, n := range on {
		wire, err := bare.Make(ctx, n, nil)
		m.wires = append(m.wires, wire)
		if err != nil {
			return nil, errors.Join(err, m.abandon(ctx))
		}
		// A node's NIC carries more than one path's flow: the TCP stream, connections,
		// what the kubelet says. Its socket must not overflow before the bridge's does.
		f, err := packets.StartFlow(wire.Left, wire.Right, rate*3/2)
		if err != nil {
			return nil, errors.Join(err, m.abandon(ctx))
		}
		m.bare = append(m.bare, f)
	}
	for _, p := range r.Paths {
		f, err := packets.StartFlow(p.From, p.To, rate)
		if err != nil {
			return nil, errors.Join(err, m.abandon(ctx))
		}
		m.flows = append(m.flows, f)
	}
	if last := len(r.Paths) - 1; last >= 0 {
		p := r.Paths[last]
		talk, err := packets.StartTalk(p.From, p.To)
		if err != nil {
			return nil, errors.Join(err, m.abandon(ctx))
		}
		m.talk = talk
		if r.Port != 0 {
			m.open = packets.StartOpening(p.From, netip.AddrPortFrom(p.To.Addr, uint16(r.Port)), 10)
		}
	}
	if err := m.restart(); err != nil {
		return nil, errors.Join(err, m.abandon(ctx))
	}
	return m, nil
}

// favour lets no vswitchd of the rig wait for the processor: a socket holds a
// quarter of a second of a flow, and what overflows it would be the machine's loss.
func (r *Rig) favour() error {
	list, err := DaemonNamed("ovs-vswitchd").find(r.nodes())
	if err != nil {
		return err
	}
	for _, p := range list {
		if err := node.Favour(p); err != nil {
			return err
		}
	}
	return nil
}

// restart waits until every flow flows, then begins to count anew: the first
// packets of a flow may be lost while neighbours are resolved.
func (m *meters) restart() error {
	for _, f := range m.all() {
		if err := f.Arrived(10 * time.Second); err != nil {
			return err
		}
	}
	for _, f := range m.all() {
		f.Forget()
	}
	return nil
}

func (m *meters) all() []*packets.Flow { return slices.Concat(m.bare, m.flows) }

func (m *meters) abandon(ctx context.Context) error {
	for _, f := range m.all() {
		f.Stop()
	}
	if m.talk != nil {
		m.talk.Stop()
	}
	if m.open != nil {
		m.open.Stop()
	}
	return m.remove(ctx)
}

// remove leaves nothing of the bare bridges.
func (m *meters) remove(ctx context.Context) error {
	var errs []error
	for _, w := range m.wires {
		errs = append(errs, w.Remove(ctx))
	}
	return errors.Join(errs...)
}

// stop ends the meters and fills in what they counted.
func (m *meters) stop(ctx context.Context, r *Rig, res *Result) error {
	for i, f := range m.flows {
		res.Flows = append(res.Flows, Counted{r.Paths[i].Name, f.Stop()})
	}
	for i, f := range m.bare {
		counted := f.Stop()
		if i == 0 {
			res.Bare = counted
		}
		res.Elsewhere = max(res.Elsewhere, counted.Lost*min(i, 1))
	}
	if m.talk != nil {
		res.Talk = m.talk.Stop()
	}
	if m.open != nil {
		res.Opened = m.open.Stop()
	}
	return m.remove(ctx)
}

// Take is the state of every node of the rig, without the bare bridges.
func (r *Rig) Take(ctx context.Context) (map[string]state.State, error) {
	out := map[string]state.State{}
	for _, n := range r.nodes() {
		s, err := state.Take(ctx, n)
		if err != nil {
			return nil, err
		}
		out[n] = s.Without(bare.Words()...)
	}
	return out, nil
}

// live is the default of Rig.Live.
func (r *Rig) live(ctx context.Context) error {
	if r.Live != nil {
		return r.Live(ctx, r)
	}
	return Live(ctx, r.Node)
}

// Live says what of a node is not at work: a daemon, the agent, or OVN, which must
// have carried out all that was asked of it. ovn-controller does that last after
// its start, when it has replaced the flows that it found.
func Live(ctx context.Context, name string) error {
	running, err := node.Processes(name)
	if err != nil {
		return err
	}
	for _, d := range Daemons() {
		if d.Everywhere && !d.in(running) {
			return fmt.Errorf("%s: %s does not run", name, d.Name)
		}
	}
	if err := Ready(ctx, name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	_, err = node.Run(ctx, name, "ovn-nbctl", "--db=unix:/run/ovn/ovnnb_db.sock", "--wait=hv", "--timeout=12", "sync")
	return err
}

// Ready asks a node's agent whether it is ready.
func Ready(ctx context.Context, name string) error {
	pid, err := node.InitPID(name)
	if err != nil {
		return err
	}
	place := packets.Place{Name: name, Path: fmt.Sprintf("/proc/%d/ns/net", pid)}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = place.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	client := http.Client{Timeout: 2 * time.Second, Transport: transport}
	resp, err := client.Get("http://127.0.0.1:9410/readyz")
	if err != nil {
		return fmt.Errorf("agent of %s: %w", name, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("agent of %s is not ready: %s", name, text)
	}
	return nil
}
