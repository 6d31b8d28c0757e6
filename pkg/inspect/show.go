package inspect

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// databases are those that an engine may write, in the order of answers.
func databases() []rows.DB { return []rows.DB{rows.OVS, rows.NB, rows.SB} }

// Units lists the live units by name.
func (s *Server) Units(ctx context.Context) ([]Unit, error) {
	out := []Unit{}
	err := s.src.Driver.Do(ctx, func() {
		for _, u := range s.src.Engine.UnitInfos() {
			out = append(out, unitOf(s.src.Engine, u))
		}
	})
	slices.SortFunc(out, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	return out, err
}

func unitOf(e *engine.Engine, u engine.UnitInfo) Unit {
	committed, installed := e.Marks(u.Group)
	return Unit{
		Name: u.Unit.String(), Group: u.Group, Rows: u.Rows, Edges: u.Edges,
		Committed: committed, Installed: installed,
	}
}

// Rows lists what units want, sorted.
func (s *Server) Rows(ctx context.Context, f Filter) ([]Row, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	var found []engine.RowInfo
	err := s.src.Driver.Do(ctx, func() {
		for _, db := range databases() {
			found = append(found, s.src.Engine.Rows(db)...)
		}
	})
	found = slices.DeleteFunc(found, func(r engine.RowInfo) bool { return !f.table(r.Row.Table) || !f.unit(r.Unit) })
	slices.SortFunc(found, func(a, b engine.RowInfo) int { return a.Row.Compare(b.Row.Ref) })
	out := make([]Row, 0, len(found))
	for _, r := range found {
		out = append(out, rowOf(r))
	}
	return out, err
}

func rowOf(r engine.RowInfo) Row {
	row := Row{
		Row: rows.FormatRef(r.Row.Ref), UUID: r.Row.UUID(), Unit: r.Unit.String(), Written: r.Written,
		Columns: map[string]string{},
	}
	if p := r.Row.Parent; !p.Row.IsZero() {
		row.Parent = rows.FormatRef(p.Row) + "." + p.Column
	}
	for _, n := range r.Row.Uses {
		row.Uses = append(row.Uses, n.String())
	}
	for _, c := range r.Row.Columns {
		row.Columns[c.Name] = rows.FormatValue(c.Value)
	}
	return row
}

// Edges lists the shared elements that units want, sorted.
func (s *Server) Edges(ctx context.Context, f Filter) ([]Edge, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	var found []engine.EdgeInfo
	err := s.src.Driver.Do(ctx, func() {
		for _, db := range databases() {
			found = append(found, s.src.Engine.Edges(db)...)
		}
	})
	found = slices.DeleteFunc(found, func(x engine.EdgeInfo) bool {
		return !f.table(x.Edge.Row.Table) || !slices.ContainsFunc(x.Units, f.unit)
	})
	return edgesOf(found), err
}

func edgesOf(found []engine.EdgeInfo) []Edge {
	slices.SortFunc(found, func(a, b engine.EdgeInfo) int { return a.Edge.Compare(b.Edge) })
	out := make([]Edge, 0, len(found))
	for _, x := range found {
		e := Edge{
			Row: rows.FormatRef(x.Edge.Row), Column: x.Edge.Column, Written: x.Written,
			Key: rows.FormatValue(rows.Value{{Key: x.Edge.Key}}),
		}
		if x.Edge.Value.Kind != rows.None {
			e.Value = rows.FormatValue(rows.Value{{Key: x.Edge.Value}})
		}
		for _, u := range x.Units {
			e.Units = append(e.Units, u.String())
		}
		out = append(out, e)
	}
	return out
}

// check refuses a table or database that there is not: an empty answer would say
// that there is nothing in it.
func (f Filter) check() error {
	if f.Database != "" && !slices.Contains(databases(), rows.DB(f.Database)) {
		return refuse(http.StatusBadRequest, "there is no database %q: wanted NB, SB or OVS", f.Database)
	}
	if f.Table != "" && len(tablesNamed(f.Table)) == 0 {
		return refuse(http.StatusBadRequest, "there is no table %q that Portolan writes: wanted one like NB:Logical_Switch_Port or Logical_Switch_Port", f.Table)
	}
	return nil
}

func (f Filter) table(t rows.Table) bool {
	return (f.Database == "" || string(t.DB()) == f.Database) && (f.Table == "" || f.Table == string(t) || f.Table == t.Name())
}

func (f Filter) unit(u engine.Unit) bool {
	name := u.String()
	return f.Unit == "" || f.Unit == name || strings.HasSuffix(f.Unit, "/") && strings.HasPrefix(name, f.Unit)
}

// tablesNamed lists the tables of a name, with its database or without.
func tablesNamed(name string) []rows.Table {
	var out []rows.Table
	for _, db := range databases() {
		for _, t := range rows.Tables(db) {
			if name == string(t) || name == t.Name() {
				out = append(out, t)
			}
		}
	}
	return out
}
