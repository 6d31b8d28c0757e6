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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// errStarting is the state before anything is known.
var errStarting = errors.New("starting")

// health is what others can ask of the agent: whether it is ready, why not, and
// its figures.
type health struct {
	registry *prometheus.Registry
	stages   *prometheus.HistogramVec

	mu       sync.Mutex // guards what follows
	notReady error
	found    map[intent.Key][]rows.Problem
}

func newHealth() *health {
	h := &health{registry: prometheus.NewRegistry(), notReady: errStarting, found: map[intent.Key][]rows.Problem{}}
	h.stages = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "portolan_cni_stage_milliseconds", Help: "Time that each stage of a CNI call took.",
		Buckets: []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60000},
	}, []string{"command", "stage"})
	h.registry.MustRegister(h.stages, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return h
}

// ready says why no ADD can be served; nil when it can.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.notReady
}

// setReady records the state, and logs a change.
func (h *health) setReady(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil && (h.notReady == nil || h.notReady.Error() != err.Error()) {
		slog.Info("not ready", "because", err)
	}
	h.notReady = err
}

// observe takes the time of one stage of a CNI call.
func (h *health) observe(command, stage string, d time.Duration) {
	h.stages.WithLabelValues(command, stage).Observe(float64(d.Microseconds()) / 1000)
}

// problems takes what is wrong with an object, and logs what is new.
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

// status prints what is not as it should be: databases that are not up, groups that
// wait or were refused, problems with objects. Nothing else is printed, so an
// empty answer after the first line means that all is written.
func (a *agent) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	report, err := a.driver.Report(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if err := a.health.ready(); err != nil {
		fmt.Fprintln(w, "not ready:", err)
	} else {
		fmt.Fprintln(w, "ready")
	}
	for _, db := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		if s := report.Databases[db]; !s.Up {
			fmt.Fprintf(w, "database %s is not up: %s\n", db, s.Err)
		}
	}
	for _, s := range report.Statuses {
		fmt.Fprintln(w, s)
	}
	for _, p := range slices.Concat(report.Problems, a.runner.Problems(), a.health.list()) {
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

// serveHealth answers /healthz, /readyz, /status and /metrics.
func (a *agent) serveHealth(ctx context.Context) error {
	if a.cfg.Health == "" {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.health.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/status", a.status)
	mux.Handle("/metrics", promhttp.HandlerFor(a.health.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Addr: a.cfg.Health, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
