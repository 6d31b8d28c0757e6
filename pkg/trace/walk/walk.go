// Package walk runs ovn-trace where a southbound database is, and says what the
// flows that it prints were made from: the far end of package trace.
//
//	Packet ──> ovn-trace ──> flows ──stage-hint (SB)──> NB row ──engine──> unit, objects
//
// It serves as one path of the agent's API, and changes nothing.
package walk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/trace"
)

// patience bounds one walk: ovn-trace reads the whole southbound database first.
const patience = 60 * time.Second

// Walker walks packets through one zone.
type Walker struct {
	Zone   string
	SB     string   // endpoint of the southbound database, as OVN's tools take it
	TLS    []string // their flags for ssl: endpoints; nil: none
	Engine *engine.Engine
	Driver Driver
	Flows  Flows
	// Command makes the process; nil: exec.CommandContext.
	Command func(ctx context.Context, name string, args ...string) *exec.Cmd
}

// Driver runs a function where the engine may be used: *ovsdb.Driver.
type Driver interface {
	Do(ctx context.Context, fn func()) error
}

// Flows tells what logical flows were made from: *ovsdb.Conn.
type Flows interface {
	StageHints(ctx context.Context, flows []ovsdb.FlowID) (map[ovsdb.FlowID]string, error)
}

// dialed asks over a connection of its own for each question.
type dialed ovsdb.Config

// Dialed is for processes that have no connection to the southbound database: one is
// made for each question.
func Dialed(cfg ovsdb.Config) Flows { return dialed(cfg) }

// StageHints connects, asks, and closes.
func (d dialed) StageHints(ctx context.Context, flows []ovsdb.FlowID) (map[ovsdb.FlowID]string, error) {
	conn, err := ovsdb.Dial(ctx, ovsdb.Config(d))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.StageHints(ctx, flows)
}

// ServeHTTP answers GET ?packet=JSON with a trace.Zone.
func (w *Walker) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var p trace.Packet
	err := json.Unmarshal([]byte(r.URL.Query().Get("packet")), &p)
	if err == nil {
		err = p.Validate()
	}
	if err != nil {
		http.Error(rw, "packet: "+err.Error(), http.StatusBadRequest)
		return
	}
	z, err := w.Walk(r.Context(), p)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(z) // the asker is gone, or reads what there is
}

// newConnections makes ovn-trace take every connection it meets for a new one: that
// is what somebody asks who cannot connect. It is one flag for each conntrack zone
// that a packet may pass.
const newConnections = 12

// Walk walks one packet.
func (w *Walker) Walk(ctx context.Context, p trace.Packet) (trace.Zone, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	z := trace.Zone{Name: w.Zone, Packet: p}
	command := w.Command
	if command == nil {
		command = exec.CommandContext
	}
	args := append([]string{"--no-leader-only", "--db=" + w.SB}, w.TLS...)
	for range newConnections {
		args = append(args, "--ct=new")
	}
	cmd := command(ctx, "ovn-trace", append(args, p.Datapath, p.Flow())...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		return z, fmt.Errorf("ovn-trace: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	z.Text = string(text)
	z.Hops = trace.Parse(z.Text)
	return z, errors.Join(w.owners(ctx, &z), w.ports(ctx, &z))
}

// owners says of the steps that tell something where they come from.
func (w *Walker) owners(ctx context.Context, z *trace.Zone) error {
	steps := z.Telling()
	if len(steps) == 0 {
		return nil
	}
	ids := make([]ovsdb.FlowID, len(steps))
	for i, s := range steps {
		ids[i] = ovsdb.FlowID{Pipeline: s.Pipeline, Table: s.Table, Priority: s.Priority, UUID: s.UUID}
	}
	hints, err := w.Flows.StageHints(ctx, ids)
	if err != nil {
		return fmt.Errorf("what the flows were made from: %w", err)
	}
	found, err := w.rows(ctx, func(r rows.Row) string {
		uuid := r.UUID()
		for _, h := range hints {
			if h != "" && strings.HasPrefix(uuid, h) {
				return h
			}
		}
		return ""
	})
	if err != nil {
		return err
	}
	// Switches with like rules share their flows, and the hint is of one of them: the row
	// that is meant is that of the switch where the packet is.
	at := z.Datapaths()
	twins, err := w.rows(ctx, func(r rows.Row) string {
		for i, s := range steps {
			if o, ok := found[hints[ids[i]]]; ok && twin(o.is, r, at[s]) {
				return hints[ids[i]] + " " + at[s]
			}
		}
		return ""
	})
	if err != nil {
		return err
	}
	for i, s := range steps {
		o, ok := twins[hints[ids[i]]+" "+at[s]]
		if !ok {
			o, ok = found[hints[ids[i]]]
		}
		if ok {
			s.Row, s.Unit, s.Objects = o.row, o.unit, o.objects
		}
	}
	return nil
}

// twin reports whether a row is the like of another on a datapath that the other is not of.
func twin(of, r rows.Row, datapath string) bool {
	if of.Parent.Row.IsZero() || of.Parent.Row.ID == datapath || r.Table != of.Table || r.Parent.Row.Table != of.Parent.Row.Table ||
		r.Parent.Row.ID != datapath || r.Parent.Column != of.Parent.Column {
		return false
	}
	for _, name := range []string{"match", "priority", "direction", "action"} {
		a, _ := of.Column(name)
		b, _ := r.Column(name)
		if !a.Equal(b) {
			return false
		}
	}
	return true
}

// ports says whose the logical ports on the way are.
func (w *Walker) ports(ctx context.Context, z *trace.Zone) error {
	names := map[string]bool{}
	for _, h := range z.Hops {
		names[h.Inport] = true
		for _, o := range h.Outputs {
			names[o.Port] = true
		}
	}
	found, err := w.rows(ctx, func(r rows.Row) string {
		if r.Table == "NB:Logical_Switch_Port" && names[r.ID] {
			return r.ID
		}
		return ""
	})
	z.Ports = map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		z.Ports[name] = found[name].objects
	}
	return err
}

// owner is where a row comes from.
type owner struct {
	row, unit string
	objects   []string
	is        rows.Row
}

// rows finds northbound rows by what pick makes of them, "" for those that are
// not wanted. Picking is done outside the driver's loop.
func (w *Walker) rows(ctx context.Context, pick func(rows.Row) string) (map[string]owner, error) {
	all := make(chan []engine.RowInfo, 1)
	if err := w.Driver.Do(ctx, func() { all <- w.Engine.Rows(rows.NB) }); err != nil {
		return nil, err
	}
	picked := map[string]engine.RowInfo{}
	for _, info := range <-all {
		if key := pick(info.Row); key != "" {
			picked[key] = info
		}
	}
	out := map[string]owner{}
	if len(picked) == 0 {
		return out, nil
	}
	spawned := make(chan map[string][]intent.Key, 1)
	if err := w.Driver.Do(ctx, func() {
		keys := map[string][]intent.Key{}
		for name, info := range picked {
			keys[name] = w.Engine.Spawners(info.Unit)
		}
		spawned <- keys
	}); err != nil {
		return nil, err
	}
	objects := <-spawned
	for name, info := range picked {
		o := owner{row: rows.FormatRef(info.Row.Ref), unit: info.Unit.String(), objects: []string{}, is: info.Row}
		for _, k := range objects[name] {
			o.objects = append(o.objects, k.String())
		}
		out[name] = o
	}
	return out, nil
}
