package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Compiler counts what an engine and its driver do. Step and Transaction are the
// driver's and the connections' observers; Watch adds what is read when asked.
type Compiler struct {
	set    *Set
	steps  prometheus.Histogram
	events prometheus.Counter
	txns   *prometheus.CounterVec
	ops    *prometheus.CounterVec
	apply  *prometheus.HistogramVec
}

// NewCompiler adds the figures of a process that has an engine.
func NewCompiler(s *Set) *Compiler {
	c := &Compiler{
		set:   s,
		steps: s.milliseconds("step_milliseconds", "Time that a step of the engine took: what had come compiled, and transactions planned.").WithLabelValues().(prometheus.Histogram),
		events: s.counterVec("step_events_total",
			"Events that steps have taken: objects, results, snapshots, ticks.").WithLabelValues(),
		txns:  s.counterVec("transactions_total", "Transactions by what became of them: committed; failed, one group at least was refused; lost, the connection broke.", "database", "result"),
		ops:   s.counterVec("operations_total", "Operations sent, those of attempts that failed included.", "database"),
		apply: s.milliseconds("transaction_milliseconds", "Time from a transaction's sending to its answer.", "database"),
	}
	return c
}

// Step takes one step's figures.
func (c *Compiler) Step(s ovsdb.StepStats) {
	c.steps.Observe(inMilliseconds(s.Duration))
	c.events.Add(float64(s.Events))
}

// Transaction takes one transaction's figures.
func (c *Compiler) Transaction(s ovsdb.TxnStats) {
	db, result := string(s.DB), "committed"
	switch {
	case s.Lost:
		result = "lost"
	case s.Failed > 0:
		result = "failed"
	}
	c.txns.WithLabelValues(db, result).Inc()
	c.ops.WithLabelValues(db).Add(float64(s.Ops))
	c.apply.WithLabelValues(db).Observe(inMilliseconds(s.Duration))
}

// Source is what Watch reads.
type Source struct {
	Engine    *engine.Engine
	Driver    Driver
	Databases []Database
	// Problems are those found outside the engine; nil: there are none.
	Problems func() []rows.Problem
}

// Driver runs a function where the engine may be used: *ovsdb.Driver.
type Driver interface {
	Do(ctx context.Context, fn func()) error
}

// Database is what a connection tells of itself: *ovsdb.Conn.
type Database interface {
	DB() rows.DB
	State() ovsdb.State
}

// Watch adds what the engine holds and how the databases are, read at each scrape.
func (c *Compiler) Watch(src Source) { c.set.add(newWatcher(c.set, src)) }

// scrapePatience bounds the wait for the engine's goroutine, which may be in a long
// step: a scrape without the engine's figures is better than none.
const scrapePatience = 2 * time.Second

// watcher is the collector behind Watch.
type watcher struct {
	src                                      Source
	objects, units, compiles, bugs           *prometheus.Desc
	groups, problems, nbCfg, hvCfg, behind   *prometheus.Desc
	up, connections, drift, engineUnanswered *prometheus.Desc
}

func newWatcher(s *Set, src Source) *watcher {
	d := func(what, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(s.name(what), help, labels, nil)
	}
	return &watcher{
		src:              src,
		objects:          d("intent_objects", "Objects of intent held, derived ones included."),
		units:            d("units", "Units of compilation alive."),
		compiles:         d("compiles_total", "Compilations of units, first ones and repeated ones."),
		bugs:             d("bugs_total", "Invalid rows and contradictions of units: faults of Portolan, never of its users."),
		groups:           d("groups_unwritten", "Groups that are not in a database as they should be: waiting for what is missing, or failed at the last attempt.", "database", "state"),
		problems:         d("problems", "Mistakes in what somebody asked for.", "severity"),
		nbCfg:            d("nb_cfg", "Number of the last change sent to the northbound database."),
		hvCfg:            d("hv_cfg", "Number of the last change that every chassis of the zone has installed."),
		behind:           d("hv_cfg_behind", "Changes sent that not every chassis has installed."),
		up:               d("database_up", "1 while the database is connected, with the lock where one is wanted.", "database"),
		connections:      d("database_connections_total", "Connections made to the database.", "database"),
		drift:            d("database_drift_total", "Rows of ours that somebody else deleted, and that were made again.", "database"),
		engineUnanswered: d("engine_busy", "1 if the engine did not answer the scrape within 2 s: its figures are left out."),
	}
}

// Describe lists the figures.
func (w *watcher) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{w.objects, w.units, w.compiles, w.bugs, w.groups, w.problems,
		w.nbCfg, w.hvCfg, w.behind, w.up, w.connections, w.drift, w.engineUnanswered} {
		ch <- d
	}
}

// Collect reads them.
func (w *watcher) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for _, db := range w.src.Databases {
		name, st := string(db.DB()), db.State()
		up := 0.0
		if st.Up {
			up = 1
		}
		gauge(w.up, up, name)
		counter(w.connections, float64(st.Epoch), name)
		counter(w.drift, float64(st.Drift), name)
	}
	counts, stats, err := w.ask()
	if err != nil {
		gauge(w.engineUnanswered, 1)
		return
	}
	gauge(w.engineUnanswered, 0)
	gauge(w.objects, float64(counts.Objects))
	gauge(w.units, float64(counts.Units))
	counter(w.compiles, float64(stats.Compiles))
	counter(w.bugs, float64(stats.Bugs))
	for db, n := range counts.Parked {
		gauge(w.groups, float64(n), string(db), "waiting")
		gauge(w.groups, float64(counts.Failed[db]), string(db), "failed")
	}
	w.outside(&counts)
	gauge(w.problems, float64(counts.Errors), string(rows.Error))
	gauge(w.problems, float64(counts.Warnings), string(rows.Warning))
	counter(w.nbCfg, float64(counts.NbCfg))
	counter(w.hvCfg, float64(counts.HvCfg))
	gauge(w.behind, float64(max(0, counts.NbCfg-counts.HvCfg)))
}

// answer is what the engine says of itself.
type answer struct {
	counts engine.Counts
	stats  engine.Stats
}

// ask reads the engine on its own goroutine. The answer comes through a channel:
// after a timeout the goroutine may still be at it.
func (w *watcher) ask() (engine.Counts, engine.Stats, error) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapePatience)
	defer cancel()
	got := make(chan answer, 1)
	err := w.src.Driver.Do(ctx, func() { got <- answer{w.src.Engine.Counts(), w.src.Engine.Stats()} })
	if err != nil {
		return engine.Counts{}, engine.Stats{}, err
	}
	a := <-got
	return a.counts, a.stats, nil
}

// outside adds the problems that are not the engine's.
func (w *watcher) outside(c *engine.Counts) {
	if w.src.Problems == nil {
		return
	}
	for _, p := range w.src.Problems() {
		switch p.Severity {
		case rows.Error:
			c.Errors++
		case rows.Warning:
			c.Warnings++
		}
	}
}
