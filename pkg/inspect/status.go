package inspect

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Status tells how the process does.
func (s *Server) Status(ctx context.Context) (Status, error) {
	st := Status{Identity: s.src.Identity, Databases: []Database{}, Groups: []Group{}, Problems: []Problem{}}
	var found []rows.Problem
	ages := map[rows.Problem]float64{}
	err := s.src.Driver.Do(ctx, func() {
		e := s.src.Engine
		st.Groups = groupsOf(e)
		found = e.Problems()
		for p, at := range e.ProblemsSince() {
			ages[p] = float64(e.Now()-at) / 1000
		}
		n := e.Stats()
		st.Networks = rendered(e)
		st.Engine = EngineStats{
			Objects: e.Store().Len(), Units: len(e.UnitInfos()), Compiles: n.Compiles,
			Transactions: n.Txns, Operations: n.Ops, Bugs: n.Bugs,
		}
	})
	if err != nil {
		return st, err
	}
	if s.src.Problems != nil {
		outside := s.src.Problems()
		found = append(found, outside...)
		for _, p := range outside {
			if s.src.Since == nil {
				continue
			}
			if at := s.src.Since(p); !at.IsZero() {
				ages[p] = time.Since(at).Seconds()
			}
		}
	}
	for _, p := range found {
		out := problemOf(p)
		out.Age = ages[p]
		st.Problems = append(st.Problems, out)
	}
	slices.SortStableFunc(st.Problems, func(a, b Problem) int { return cmp.Compare(a.Object, b.Object) })
	for _, db := range s.src.Databases {
		state := db.State()
		st.Databases = append(st.Databases, Database{
			Name: string(db.DB()), Up: state.Up, Generation: state.Epoch, Error: state.Err,
			Drift: state.Drift, Installed: state.HvCfg,
		})
	}
	if s.src.Mode != nil {
		st.Mode = s.src.Mode()
	}
	st.Ready = true
	if err := s.src.Ready(); err != nil {
		st.Ready, st.NotReady = false, err.Error()
	}
	return st, nil
}

// rendered counts the networks beside the default one that have rows here.
func rendered(e *engine.Engine) int {
	n := 0
	for _, u := range e.UnitInfos() {
		if u.Unit.Kind == "network" && u.Rows > 0 {
			n++
		}
	}
	return n
}

func problemOf(p rows.Problem) Problem {
	return Problem{Object: p.Object, Field: p.Field, Severity: string(p.Severity), Message: p.Message}
}

func groupsOf(e *engine.Engine) []Group {
	out := []Group{}
	for _, st := range e.Statuses() {
		out = append(out, groupOf(st, e.Now()))
	}
	return out
}

// groupOf takes the time from the engine's ticks, which are milliseconds.
func groupOf(st engine.Status, now int64) Group {
	g := Group{Name: st.Group, Database: string(st.DB), Waiting: st.Waiting, Error: st.Failure.Err}
	g.Age = float64(now-st.Since) / 1000
	if st.Retry > now {
		g.Retry = float64(st.Retry-now) / 1000
	}
	if st.Failure.Err != "" {
		g.Class = st.Failure.Class.String()
	}
	return g
}
