package ovsdb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// attachments starts the owner of ports that belong to the CNI server, which the
// engine must not touch (decision 19).
const attachments = "attachment/"

// rawRef starts the ID of a Ref to a row that is not known by an ID of ours: the
// rest is its UUID. Edges and deletions of such a Ref work like any other's.
const rawRef = "?"

// Snapshot reads everything of ours, the singleton and the unique names of
// others, in one transaction. Apply works only on a connection that has given
// one. It waits for the connection, and for the lock if one is configured.
func (c *Conn) Snapshot(ctx context.Context) (engine.Snapshot, error) {
	r, epoch, err := c.session(ctx)
	if err != nil {
		return engine.Snapshot{}, err
	}
	if err := c.ensureSingleton(ctx, r); err != nil {
		return engine.Snapshot{}, err
	}
	snap, strays, err := c.read(ctx, r)
	if err != nil {
		return snap, err
	}
	if err := c.takeOver(ctx, r, strays); err != nil {
		return snap, err
	}
	return snap, c.synced(epoch)
}

// takeOver gives rows of ours that have another zone's tag this zone's. A database
// has one zone: they are of a time when the node had another name.
func (c *Conn) takeOver(ctx context.Context, r *rpc, strays []*foundRow) error {
	if len(strays) == 0 {
		return nil
	}
	c.log.Info("rows of an earlier name of this zone are taken over", "db", string(c.cfg.DB), "rows", len(strays), "earlier", strays[0].tags.zone, "zone", c.cfg.Zone)
	params := []any{databaseName(c.cfg.DB)}
	if c.cfg.Lock {
		params = append(params, operation{Op: "assert", Lock: LockName})
	}
	tag := [2]any{"map", [][2]string{{engine.ZoneKey, c.cfg.Zone}}}
	for _, f := range strays {
		params = append(params, operation{Op: "mutate", Table: f.table.Name(), Where: rowWithUUID(f.uuid), Mutations: []mutation{
			{"external_ids", "delete", [2]any{"set", []string{engine.ZoneKey}}}, {"external_ids", "insert", tag},
		}})
	}
	var results []result
	if err := r.call(ctx, "transact", params, &results); err != nil {
		return fmt.Errorf("take over rows of zone %q: %w", strays[0].tags.zone, err)
	}
	if text := errorOf(results); text != "" {
		return fmt.Errorf("take over rows of zone %q: %s", strays[0].tags.zone, text)
	}
	return nil
}

// Read is a Snapshot for somebody who only looks: it writes nothing, and Apply
// does not rest on it.
func (c *Conn) Read(ctx context.Context) (engine.Snapshot, error) {
	r, _, err := c.session(ctx)
	if err != nil {
		return engine.Snapshot{}, err
	}
	snap, _, err := c.read(ctx, r)
	return snap, err
}

// read takes everything in one transaction, and tells which rows of ours have the tag
// of another zone.
func (c *Conn) read(ctx context.Context, r *rpc) (engine.Snapshot, []*foundRow, error) {
	tables := rows.Tables(c.cfg.DB)
	params := []any{databaseName(c.cfg.DB)}
	for _, t := range tables {
		params = append(params, selectAll(t))
	}
	rd := newReader(c.cfg.DB)
	snap := engine.Snapshot{DB: c.cfg.DB, Strangers: map[string]string{}}
	var reply json.RawMessage
	if err := r.call(ctx, "transact", params, &reply); err != nil {
		return snap, nil, fmt.Errorf("read %s: %w", databaseName(c.cfg.DB), err)
	}
	if err := rd.results(reply, tables); err != nil {
		return snap, nil, err
	}
	snap.NbCfg, snap.HvCfg = rd.nbCfg, rd.hvCfg
	rd.identify()
	rd.adopt()
	var strays []*foundRow
	snap.Rows = make([]engine.ActualRow, 0, len(rd.found))
	for _, f := range rd.found {
		if f.ours {
			if f.tags.owner != "" && f.tags.zone != c.cfg.Zone && c.cfg.DB != rows.OVS {
				strays = append(strays, f)
			}
			snap.Rows = append(snap.Rows, rd.actual(f))
			continue
		}
		for _, key := range uniqueKeys(f) {
			snap.Strangers[key] = f.String()
		}
	}
	return snap, strays, nil
}

// ensureSingleton makes the one row that a new or wiped database lacks until
// northd or ovs-ctl makes it: changes of it would count no row. If somebody else
// is faster, the table's limit of one row refuses ours.
func (c *Conn) ensureSingleton(ctx context.Context, r *rpc) error {
	table := singleton(c.cfg.DB).Name()
	params := []any{databaseName(c.cfg.DB), operation{Op: "select", Table: table, Where: everyRow(), Columns: []string{"_uuid"}}}
	var results []result
	if err := r.call(ctx, "transact", params, &results); err != nil {
		return fmt.Errorf("read %s: %w", table, err)
	}
	if len(results) == 1 && len(results[0].Rows) == 1 {
		return nil
	}
	params = []any{params[0], operation{Op: "insert", Table: table, Row: map[string]columnValue{}}}
	if err := r.call(ctx, "transact", params, nil); err != nil {
		return fmt.Errorf("make the row of %s: %w", table, err)
	}
	return nil
}

func selectAll(t rows.Table) operation {
	schema, _ := rows.SchemaOf(t)
	columns := make([]string, 0, len(schema.Columns)+3)
	columns = append(columns, "_uuid")
	for _, c := range schema.Columns {
		columns = append(columns, c.Name)
	}
	if t == singleton(rows.NB) {
		columns = append(columns, "nb_cfg", "hv_cfg")
	}
	return operation{Op: "select", Table: t.Name(), Where: everyRow(), Columns: columns}
}

func number(raw json.RawMessage) int64 {
	n, err := (&jsonText{b: raw}).integer()
	if err != nil {
		return 0
	}
	return n
}

// take removes our tags from external_ids.
func (t *tags) take(v rows.Value) rows.Value {
	return slices.DeleteFunc(v, func(p rows.Pair) bool {
		switch p.Key.Str {
		case engine.OwnerKey:
			t.owner = p.Value.Str
		case engine.IDKey:
			t.id = p.Value.Str
		case engine.ZoneKey:
			t.zone = p.Value.Str
		default:
			return false
		}
		return true
	})
}

// identify decides which rows are ours and what they are called. Of two rows
// with one ID the one with the derived UUID is that row; the other is ours too,
// but nobody will want it.
func (r *reader) identify() {
	slices.SortFunc(r.found, func(a, b *foundRow) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.uuid, b.uuid))
	})
	taken := map[rows.Ref]*foundRow{}
	for _, f := range r.found {
		f.ref, f.ours = r.name(f)
		other := taken[f.ref]
		switch {
		case other == nil:
			taken[f.ref] = f
		case f.uuid == f.ref.UUID():
			other.ref.ID = rawRef + other.uuid
			taken[f.ref] = f
		default:
			f.ref.ID = rawRef + f.uuid
		}
	}
}

// name tells what a row is called, and whether it is ours (or the singleton).
func (r *reader) name(f *foundRow) (rows.Ref, bool) {
	ref := rows.Ref{Table: f.table, ID: rows.Singleton}
	if f.table == singleton(r.db) {
		return ref, true
	}
	schema, _ := rows.SchemaOf(f.table)
	raw := rows.Ref{Table: f.table, ID: rawRef + f.uuid}
	if !schema.ExternalIDs {
		ref.ID = schema.NaturalID(f.cols)
		if ref.UUID() == f.uuid {
			return ref, true
		}
		// Servers make version 4: this one was ours and somebody changed its name.
		u, err := uuid.Parse(f.uuid)
		return raw, err == nil && u.Version() == 5
	}
	ref.ID = f.tags.id
	switch {
	case f.tags.id == "" || f.tags.owner == "":
		return raw, false
	case r.db == rows.OVS:
		return ref, !strings.HasPrefix(f.tags.owner, attachments)
	}
	// A database has one zone. Rows of another are ours, of a time when the node had
	// another name; Snapshot has given them the new one's tag.
	return ref, true
}

// adopt finds the parent of every row of a non-root table: the first row, in
// order of table and UUID, that refers to it strongly.
func (r *reader) adopt() {
	for _, holder := range r.found {
		for _, col := range holder.cols {
			for _, child := range r.children(holder.table, col) {
				if _, ok := r.parent[child]; !ok {
					r.parent[child] = rows.Parent{Row: holder.ref, Column: col.Name}
				}
			}
		}
	}
}

// children lists the UUIDs in a column that keeps rows of a non-root table alive.
func (r *reader) children(table rows.Table, col rows.Column) []string {
	if !keeps(table, col.Name) {
		return nil
	}
	ids := make([]string, 0, len(col.Value))
	for _, p := range col.Value {
		ids = append(ids, p.Key.Ref.ID)
	}
	return ids
}

// keeps reports whether a column holds strong references to a non-root table.
func keeps(table rows.Table, column string) bool {
	schema, _ := rows.SchemaOf(table)
	c, _ := schema.Column(column)
	child, ok := rows.SchemaOf(c.RefTable)
	return ok && c.Strong && !c.Map && !child.Root
}

// actual is a row with its references resolved. Children are left out of their
// parent's column: ours say it by their Parent, and those of others
// (ovn-controller's ports in br-int) are not the engine's to remove.
func (r *reader) actual(f *foundRow) engine.ActualRow {
	out := engine.ActualRow{Ref: f.ref, Owner: f.tags.owner, UUID: f.uuid, Parent: r.parent[f.uuid]}
	schema, _ := rows.SchemaOf(f.table)
	for _, col := range f.cols {
		if c, _ := schema.Column(col.Name); c.Key != rows.Reference && c.Value != rows.Reference {
			out.Columns = append(out.Columns, col)
			continue
		}
		keeps := keeps(f.table, col.Name)
		self := rows.Parent{Row: f.ref, Column: col.Name}
		v := make(rows.Value, 0, len(col.Value))
		for _, p := range col.Value {
			if keeps {
				child := r.byUUID[p.Key.Ref.ID]
				if child == nil || !child.ours || r.parent[child.uuid] == self {
					continue
				}
			}
			v = append(v, rows.Pair{Key: r.resolve(p.Key), Value: r.resolve(p.Value)})
		}
		if len(v) > 0 {
			slices.SortFunc(v, func(a, b rows.Pair) int { return a.Key.Compare(b.Key) })
			out.Columns = append(out.Columns, rows.Column{Name: col.Name, Value: v})
		}
	}
	return out
}

func (r *reader) resolve(a rows.Atom) rows.Atom {
	if a.Kind != rows.Reference {
		return a
	}
	if f := r.byUUID[a.Ref.ID]; f != nil {
		return rows.R(f.ref)
	}
	return rows.R(rows.Ref{Table: a.Ref.Table, ID: rawRef + a.Ref.ID})
}

// uniqueKeys are the row's values in its table's indexes, as the engine writes them.
func uniqueKeys(f *foundRow) []string {
	schema, _ := rows.SchemaOf(f.table)
	keys := make([]string, 0, len(schema.Indexes))
	row := rows.Row{Columns: f.cols}
	for _, ix := range schema.Indexes {
		key := string(f.table)
		for _, name := range ix {
			v, _ := row.Column(name)
			key += "/"
			for _, p := range v {
				key += p.Key.String()
			}
		}
		keys = append(keys, key)
	}
	return keys
}

// String describes a row to people: what tells it from others, and whose it may be.
func (f *foundRow) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s row %s", f.table, f.uuid)
	row := rows.Row{Columns: f.cols}
	if v, ok := row.Column("name"); ok {
		fmt.Fprintf(&b, " name %v", v[0].Key)
	}
	switch {
	case f.tags.zone != "":
		fmt.Fprintf(&b, " of zone %q", f.tags.zone)
	case f.tags.owner != "":
		fmt.Fprintf(&b, " of %s", f.tags.owner)
	default:
		b.WriteString(" without our tag")
	}
	v, _ := row.Column("external_ids")
	for _, p := range v[:min(len(v), 4)] {
		fmt.Fprintf(&b, ", %s=%s", p.Key.Str, p.Value.Str)
	}
	return b.String()
}

// synced notes that a snapshot was taken on the connection of an epoch, and
// fails if that connection is gone.
func (c *Conn) synced(epoch uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Epoch != epoch || !c.state.Up {
		return errors.New("the connection was lost while it was read")
	}
	c.readEpoch = epoch
	return nil
}
