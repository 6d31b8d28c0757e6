package host

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// wiresFile holds what physical networks have been given.
const wiresFile = "wires.json"

// Wire is a PhysicalNetwork that this node is selected for: a NIC that a bridge is
// made for, or a bridge that is there.
type Wire struct{ Network, NIC, Bridge string }

// WireState is what became of a Wire.
type WireState struct {
	Network string
	Bridge  string // that it is mapped to; "": none
	Ready   bool
	Message string // why it is not ready; of one that is: what does not fit
	Field   string // of the PhysicalNetwork, that the message is about

	gone    bool // its NIC is away, whatever vswitchd says of the port
	pending bool // nothing is wrong, it is on its way
}

// heldWire is what a physical network has been given. It is noted before anything is
// changed, so that the next run keeps it before it has heard from the API server.
type heldWire struct {
	Network string `json:"network"`
	Bridge  string `json:"bridge"`
	NIC     string `json:"nic,omitempty"`     // "": the bridge was there before us
	Virtual bool   `json:"virtual,omitempty"` // the NIC is a veth: nothing finishes its checksums
}

// WiresConfig is what Wires is made from.
type WiresConfig struct {
	Kernel   *Kernel
	OVS      *OVS
	Keeper   *Keeper
	Gateway  Gateway
	Datapath intent.Datapath
	RunDir   string // the machine's /run, where network daemons keep state; "": /run
	SysDir   string // "": /sys
	// Take has rows made for these and no others. It is called by one goroutine.
	Take func([]intent.PhysicalBridge)
	Log  *slog.Logger
}

// Wires decides which NICs and bridges of a node its physical networks get, and
// keeps the kernel's side of those NICs.
//
//	PhysicalNetworks ──> Wires ──Take──> engine ──rows──> Open_vSwitch: bridge, NIC, mapping
//	links, bridges ───────^  └──DeclareWires──> Keeper: NIC up, hidden, without IPv6
//
// A NIC that is taken stays taken while it is wanted, also while it is away: what is
// asked of a NIC is asked before. One that is given back is as it was.
type Wires struct {
	cfg    WiresConfig
	wanted *latest[[]Wire]

	// Of Run's goroutine alone, after NewWires.
	held  []heldWire
	taken []intent.PhysicalBridge
	notes map[string]string

	mu     sync.Mutex // guards states
	states []WireState
}

// NewWires makes it; what an earlier run has taken is kept from now on, and Take told.
func NewWires(c WiresConfig) (*Wires, error) {
	w := &Wires{cfg: c, wanted: newLatest[[]Wire](), notes: map[string]string{}}
	if _, err := readJSON(filepath.Join(c.Kernel.record.dir, wiresFile), &w.held); err != nil {
		return nil, err
	}
	for _, h := range w.held {
		w.taken = append(w.taken, intent.PhysicalBridge{Network: h.Network, Bridge: h.Bridge, NIC: h.NIC})
	}
	if len(w.taken) > 0 {
		c.Take(w.taken)
	}
	c.Keeper.DeclareWires(w.config())
	return w, nil
}

// Declare gives the physical networks that the node is selected for; it returns at once.
func (w *Wires) Declare(wires []Wire) {
	wires = slices.Clone(wires)
	slices.SortFunc(wires, func(a, b Wire) int { return strings.Compare(a.Network, b.Network) })
	if have, version := w.wanted.peek(); version == 0 || !slices.Equal(have, wires) {
		w.wanted.put(wires)
	}
}

// States tells what became of each, by name.
func (w *Wires) States() []WireState {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.states)
}

// Problems are the physical networks that this node does not have.
func (w *Wires) Problems() []rows.Problem {
	var out []rows.Problem
	for _, s := range w.States() {
		severity := rows.Error
		if s.Ready {
			severity = rows.Warning
		}
		if s.Message != "" && !s.pending {
			out = append(out, rows.Problem{Object: string(intent.KindPhysicalNetwork) + "/" + s.Network, Field: s.Field, Severity: severity, Message: s.Message})
		}
	}
	return out
}

// Run keeps the wires until ctx ends; nothing is undone then.
func (w *Wires) Run(ctx context.Context) {
	done := make(chan struct{})
	defer close(done)
	links, changed := w.subscribe(done), w.cfg.OVS.Changed()
	tick := time.NewTicker(reread)
	defer tick.Stop()
	for {
		if list, version := w.wanted.get(); version > 0 {
			w.look(ctx, list)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wanted.changed():
		case <-links:
		case <-changed:
		case <-tick.C:
		}
	}
}

// subscribe makes a bell of the kernel's notices of links. Without them the look
// once a second remains.
func (w *Wires) subscribe(done <-chan struct{}) <-chan struct{} {
	bell := make(chan struct{}, 1)
	updates := make(chan netlink.LinkUpdate)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		w.cfg.Log.Warn("no events of links: physical networks' NICs are looked for once a second", "error", err)
		return bell
	}
	go func() { // ends when the subscription has closed its channel
		for range updates {
			select {
			case bell <- struct{}{}:
			default:
			}
		}
	}()
	return bell
}

// look decides anew, and has done what follows.
func (w *Wires) look(ctx context.Context, list []Wire) {
	sw, whole := w.cfg.OVS.Switch(ctx)
	if !whole {
		return
	}
	var taken []intent.PhysicalBridge
	states := make([]WireState, len(list))
	for i, wire := range list {
		states[i] = w.judge(sw, list, wire)
		if states[i].Bridge != "" {
			taken = append(taken, intent.PhysicalBridge{Network: wire.Network, Bridge: states[i].Bridge, NIC: wire.NIC})
		}
	}
	if err := w.hold(sw, taken); err != nil {
		w.cfg.Log.Error("physical networks' NICs not kept", "error", err)
		return
	}
	if !slices.Equal(taken, w.taken) {
		w.taken = taken
		w.cfg.Take(taken)
	}
	w.note(states)
}

// note keeps the states, and logs those that have changed.
func (w *Wires) note(states []WireState) {
	notes := map[string]string{}
	for _, s := range states {
		notes[s.Network] = fmt.Sprint(s.Ready, s.Message)
		if w.notes[s.Network] != notes[s.Network] {
			w.cfg.Log.Info("physical network", "network", s.Network, "bridge", s.Bridge, "ready", s.Ready, "message", s.Message)
		}
	}
	w.notes = notes
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = states
}

// hold takes NICs, and gives back those that no bridge of ours has any more.
func (w *Wires) hold(sw Switch, taken []intent.PhysicalBridge) error {
	before := slices.Clone(w.held)
	same := func(h heldWire, t intent.PhysicalBridge) bool {
		return h.Network == t.Network && h.Bridge == t.Bridge && h.NIC == t.NIC
	}
	for _, t := range taken {
		if slices.ContainsFunc(w.held, func(h heldWire) bool { return same(h, t) }) {
			continue
		}
		l, err := w.cfg.Kernel.nl.LinkByName(t.NIC)
		w.held = append(w.held, heldWire{t.Network, t.Bridge, t.NIC, err == nil && l.Type() == "veth"})
	}
	slices.SortStableFunc(w.held, func(a, b heldWire) int { return strings.Compare(a.Network, b.Network) })
	w.held = slices.DeleteFunc(w.held, func(h heldWire) bool {
		_, inBridge := sw.Bridges[h.Bridge].Ports[h.NIC]
		return !inBridge && !slices.ContainsFunc(taken, func(t intent.PhysicalBridge) bool { return same(h, t) })
	})
	if slices.Equal(w.held, before) {
		return nil
	}
	if err := w.save(); err != nil {
		w.held = before
		return err
	}
	w.cfg.Keeper.DeclareWires(w.config())
	return nil
}

// save keeps what is held; nothing leaves no file.
func (w *Wires) save() error {
	path := filepath.Join(w.cfg.Kernel.record.dir, wiresFile)
	if len(w.held) == 0 {
		return durable.Remove(path)
	}
	return writeJSON(path, w.held)
}

// config is the kernel's side of the NICs that are held. They are Open vSwitch's
// alone: the node's own stack neither hears them nor speaks there.
func (w *Wires) config() Config {
	var c Config
	userspace := w.cfg.Datapath == intent.UserspaceDatapath
	for _, h := range w.held {
		if h.NIC == "" {
			continue
		}
		c.Links = append(c.Links, Link{Name: h.NIC, GiveBack: true, TxChecksumOff: userspace && h.Virtual})
		c.Sysctls = append(c.Sysctls, Sysctl{"net/ipv6/conf/" + h.NIC + "/disable_ipv6", "1"})
		if userspace {
			c.Hidden = append(c.Hidden, Hidden{NIC: h.NIC})
		}
	}
	return c
}
