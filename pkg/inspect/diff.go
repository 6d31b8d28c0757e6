package inspect

import (
	"context"
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Diff reads every database now and compares it with what units want.
func (s *Server) Diff(ctx context.Context) (Diff, error) {
	d := Diff{Databases: []DatabaseDiff{}}
	for _, db := range s.src.Databases {
		one, err := s.diff(ctx, db)
		if err != nil {
			one.Error = err.Error()
		}
		d.Databases = append(d.Databases, one)
	}
	return d, ctx.Err()
}

// diff asks the engine before and after the read: what is a difference to only one
// of the two is a change under way.
func (s *Server) diff(ctx context.Context, db DB) (DatabaseDiff, error) {
	out := DatabaseDiff{Name: string(db.DB()), Differences: []Difference{}}
	if st := db.State(); !st.Up {
		return out, fmt.Errorf("not up: %s", st.Err)
	}
	before, err := s.expect(ctx, db.DB())
	if err != nil {
		return out, err
	}
	snap, err := db.Read(ctx)
	if err != nil {
		return out, err
	}
	out.Rows, out.Edges = before.Size()
	found := before.Compare(snap)
	if len(found) == 0 {
		return out, nil
	}
	after, err := s.expect(ctx, db.DB())
	if err != nil {
		return out, err
	}
	still := map[engine.Difference]bool{}
	for _, x := range after.Compare(snap) {
		x.Pending = false
		still[x] = true
	}
	for _, x := range found {
		pending := x.Pending
		x.Pending = false
		if still[x] {
			x.Pending = pending
			out.Differences = append(out.Differences, differenceOf(x))
		}
	}
	return out, nil
}

func (s *Server) expect(ctx context.Context, db rows.DB) (*engine.Expectation, error) {
	var x *engine.Expectation
	var ok bool
	if err := s.src.Driver.Do(ctx, func() { x, ok = s.src.Engine.Expect(db) }); err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("the engine does not write %s", db)
	}
	return x, nil
}

func differenceOf(x engine.Difference) Difference {
	kinds := map[engine.DifferenceKind]string{engine.Missing: Missing, engine.Different: Different, engine.Surplus: Surplus}
	id := x.Ref.UUID()
	if raw, ok := strings.CutPrefix(x.Ref.ID, "?"); ok { // ovsdb names so what has our tag and no id of ours
		id = raw
	}
	if x.Ref.ID == rows.Singleton {
		id = ""
	}
	return Difference{
		Kind: kinds[x.Kind], Row: rows.FormatRef(x.Ref), UUID: id, Unit: x.Unit, Column: x.Column,
		Want: x.Want, Found: x.Found, Pending: x.Pending,
	}
}
