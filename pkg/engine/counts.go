package engine

import "github.com/portolan-cni/portolan/pkg/rows"

// Counts says how much an engine holds, and how much of it is not as it should be.
type Counts struct {
	Objects  int // of intent, derived ones included
	Units    int
	Errors   int // problems of severity error
	Warnings int // of severity warning
	// Parked and Failed count groups of each database: those that wait for what is
	// missing, and those whose last transaction was refused or lost.
	Parked map[rows.DB]int
	Failed map[rows.DB]int
	NbCfg  int64 // the last that was sent to NB; 0: none
	HvCfg  int64 // what every chassis of the zone has installed
}

// Counts counts. Unlike Statuses and Problems it sorts and copies nothing, so that it
// can be asked every few seconds at ten thousand pods.
func (e *Engine) Counts() Counts {
	c := Counts{Objects: e.store.Len(), Units: len(e.units), Parked: map[rows.DB]int{}, Failed: map[rows.DB]int{}}
	for _, u := range e.units {
		for i := range u.problems {
			if u.problems[i].Severity == rows.Error {
				c.Errors++
			} else {
				c.Warnings++
			}
		}
	}
	for _, db := range e.cfg.Databases {
		l := e.ledgers[db]
		c.Parked[db], c.Failed[db] = 0, 0
		for _, g := range l.groups {
			switch {
			case len(g.parked) > 0:
				c.Parked[db]++
			case g.failure.Err != "":
				c.Failed[db]++
			}
		}
		if db == rows.NB {
			c.NbCfg, c.HvCfg = l.nbCfg, l.installed
		}
	}
	return c
}

// ProblemsSince tells the tick from which on each problem has been as it is, as far
// as this engine knows: a restart begins anew.
func (e *Engine) ProblemsSince() map[rows.Problem]int64 {
	out := map[rows.Problem]int64{}
	for _, u := range e.units {
		for _, p := range u.problems {
			if at, ok := out[p]; !ok || u.since < at {
				out[p] = u.since
			}
		}
	}
	return out
}
