package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/metrics"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// health is what others can ask of the controller.
type health struct {
	set      *metrics.Set
	compiler *metrics.Compiler

	mu     sync.Mutex    // guards what follows
	driver *ovsdb.Driver // nil until the database has answered
	known  bool          // every source is listed
	found  map[intent.Key][]rows.Problem
}

func newHealth() *health {
	set := metrics.New("controller")
	return &health{set: set, compiler: metrics.NewCompiler(set), found: map[intent.Key][]rows.Problem{}}
}

// watch gives health what it tells of.
func (h *health) watch(d *ovsdb.Driver, e *engine.Engine, nb *ovsdb.Conn) {
	h.compiler.Watch(metrics.Source{Engine: e, Driver: d, Databases: []metrics.Database{nb}, Problems: h.list})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.driver = d
}

// synced notes that the cluster is known.
func (h *health) synced() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = true
}

// complete reports whether the cluster is known.
func (h *health) complete() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

// problems takes what is wrong with an object, and logs it.
func (h *health) problems(k intent.Key, list []rows.Problem) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(list) == 0 {
		delete(h.found, k)
		return
	}
	h.found[k] = list
	for _, p := range list {
		slog.Warn("problem", "object", p.Object, "field", p.Field, "message", p.Message)
	}
}

// report asks the driver; its error says why nobody could be asked.
func (h *health) report(ctx context.Context) (ovsdb.Report, error) {
	h.mu.Lock()
	d := h.driver
	h.mu.Unlock()
	if d == nil {
		return ovsdb.Report{}, errors.New("waiting for the northbound database")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return d.Report(ctx)
}

// ready is nil for one that writes, and for one that stands by for it.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.driver == nil:
		return errors.New("waiting for the northbound database")
	case !h.known:
		return errors.New("waiting for the API server")
	}
	return nil
}

// status prints whether this process writes, and what is not as it should be.
func (h *health) status(w http.ResponseWriter, r *http.Request) {
	report, err := h.report(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if s := report.Databases[rows.NB]; s.Up {
		fmt.Fprintln(w, "writes")
	} else {
		fmt.Fprintln(w, "stands by:", s.Err)
	}
	for _, s := range report.Statuses {
		fmt.Fprintln(w, s)
	}
	for _, p := range slices.Concat(report.Problems, h.list()) {
		fmt.Fprintf(w, "%s %s %s: %s\n", p.Severity, p.Object, p.Field, p.Message)
	}
}

// list returns the problems found at the door.
func (h *health) list() []rows.Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []rows.Problem
	for _, ps := range h.found {
		out = append(out, ps...)
	}
	return out
}

// serve answers /healthz, /readyz, /status and /metrics until ctx ends.
func (h *health) serve(ctx context.Context, bind string) error {
	if bind == "" {
		return nil
	}
	mux := h.set.Handler(metrics.Probes{Ready: h.ready})
	mux.HandleFunc("/status", h.status)
	return metrics.Serve(ctx, bind, mux)
}
