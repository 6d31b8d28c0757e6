package enginetest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// DB is one simulated database with its singleton row. It is not safe for
// concurrent use.
type DB struct {
	name rows.DB
	rows map[string]*row // by UUID
	root string          // UUID of the singleton
	// NbCfg and HvCfg are NB_Global's; chassis are simulated by who sets HvCfg.
	NbCfg, HvCfg int64
	// Lost lists rows and weak references that a transaction wrote and that
	// were gone once it was committed: a real server says nothing.
	Lost []string
}

// row is never changed once it is in DB.rows: a transaction changes a copy.
// References in cols have the target's UUID as their ID.
type row struct {
	table rows.Table
	uuid  string
	cols  map[string]rows.Value
}

func (r *row) clone() *row { return &row{r.table, r.uuid, maps.Clone(r.cols)} }

// singletons names each database's table that has one row, made with the database.
var singletons = map[rows.DB]rows.Table{rows.NB: "NB:NB_Global", rows.SB: "SB:SB_Global", rows.OVS: "OVS:Open_vSwitch"}

// New makes an empty database: the singleton is there, as after ovsdb-server's
// first start.
func New(name rows.DB) *DB {
	d := &DB{name: name, rows: map[string]*row{}}
	d.root = foreignUUID(rows.Ref{Table: singletons[name], ID: rows.Singleton})
	d.rows[d.root] = &row{table: singletons[name], uuid: d.root, cols: map[string]rows.Value{}}
	return d
}

// Name is the database's.
func (d *DB) Name() rows.DB { return d.name }

// Len is the number of rows, the singleton included.
func (d *DB) Len() int { return len(d.rows) }

// Apply performs a transaction as the database layer does: whole, or, when it
// is refused, in halves at the borders of its parts until those at fault are
// known. What needs one of them is withheld.
func (d *DB) Apply(t engine.Txn) engine.Result {
	res := engine.Result{DB: t.DB, Txn: t.ID, Failed: map[string]engine.Failure{}}
	d.bisect(t.NbCfg, engine.Parts(t.Groups), res.Failed)
	return res
}

func (d *DB) bisect(nbCfg int64, parts [][]engine.GroupOps, failed map[string]engine.Failure) {
	parts = engine.Withhold(parts, failed)
	if len(parts) == 0 {
		return
	}
	vanished, err := d.transact(nbCfg, slices.Concat(parts...))
	switch {
	case err == nil:
		for _, g := range vanished {
			failed[g] = engine.Failure{Class: engine.Vanished, Err: "a mutate counted no row"}
		}
	case len(parts) == 1:
		for _, g := range parts[0] {
			failed[g.Group] = engine.Failure{Class: engine.Constraint, Err: err.Error()}
		}
	default:
		d.bisect(nbCfg, parts[:len(parts)/2], failed)
		d.bisect(nbCfg, parts[len(parts)/2:], failed)
	}
}

// transact performs groups in one transaction: as pkg/ovsdb does it, all inserts,
// then changes, then deletions. It returns the groups of which an operation met
// no row.
func (d *DB) transact(nbCfg int64, groups []engine.GroupOps) ([]string, error) {
	tx := &transaction{db: d, rows: map[string]*row{}}
	var vanished []string
	for _, phase := range []func(engine.Op) (bool, error){tx.insert, tx.change, tx.remove} {
		for _, g := range groups {
			for _, op := range g.Ops {
				ok, err := phase(op)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", op, err)
				}
				if !ok && !slices.Contains(vanished, g.Group) {
					vanished = append(vanished, g.Group)
				}
			}
		}
	}
	after, lost, err := tx.close()
	if err != nil {
		return nil, err
	}
	d.rows, d.Lost = after, append(d.Lost, lost...)
	d.NbCfg = max(d.NbCfg, nbCfg)
	return vanished, nil
}

// Foreign writes rows and edges as somebody else would: without our tags, under
// UUIDs that are not derived. References may point at foreign rows or at ours.
func (d *DB) Foreign(rs []rows.Row, es []rows.Edge) error {
	tx := &transaction{db: d, rows: map[string]*row{}, foreign: map[rows.Ref]string{}}
	for _, r := range rs {
		tx.foreign[r.Ref] = foreignUUID(r.Ref)
	}
	ops := make([]engine.Op, 0, len(rs)+len(es))
	for _, r := range rs {
		ops = append(ops, engine.Op{Kind: engine.Insert, Row: r})
	}
	for _, e := range es {
		ops = append(ops, engine.Op{Kind: engine.Add, Edge: e})
	}
	for _, phase := range []func(engine.Op) (bool, error){tx.insert, tx.change} {
		for _, op := range ops {
			if ok, err := phase(op); err != nil || !ok {
				return fmt.Errorf("%s: no such row, or %w", op, err)
			}
		}
	}
	after, lost, err := tx.close()
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("lost: %v", lost)
	}
	if err == nil {
		d.rows = after
	}
	return err
}

// Vandalize deletes a row of ours behind the engine's back, with its references.
func (d *DB) Vandalize(ref rows.Ref) error {
	tx := &transaction{db: d, rows: map[string]*row{}}
	id := ref.UUID()
	if d.rows[id] == nil {
		return fmt.Errorf("%v: no such row", ref)
	}
	tx.rows[id] = nil
	for holder, r := range d.rows {
		for name, v := range r.cols {
			left := slices.DeleteFunc(slices.Clone(v), func(p rows.Pair) bool { return p.Key.Ref.ID == id || p.Value.Ref.ID == id })
			if len(left) < len(v) && tx.at(holder) != nil {
				tx.writable(holder).cols[name] = left
			}
		}
	}
	after, _, err := tx.close()
	if err == nil {
		d.rows = after
	}
	return err
}

// foreignUUID is stable, and of version 4, as servers make them.
func foreignUUID(ref rows.Ref) string {
	u := uuid.NewSHA1(uuid.NameSpaceURL, []byte(rows.FormatRef(ref)))
	u[6] = u[6]&0x0f | 0x40
	return u.String()
}

// Clone is a copy that changes apart.
func (d *DB) Clone() *DB {
	c := *d
	c.rows, c.Lost = maps.Clone(d.rows), slices.Clone(d.Lost)
	return &c
}
