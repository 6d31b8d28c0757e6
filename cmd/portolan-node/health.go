package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/metrics"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// errStarting is the state before anything is known.
var errStarting = errors.New("starting")

// health is what others can ask of the agent: whether it is ready, why not, and
// its figures.
type health struct {
	set      *metrics.Set
	node     *metrics.Node
	compiler *metrics.Compiler
	offload  *metrics.Offload
	devices  *metrics.Devices

	mu       sync.Mutex // guards what follows
	notReady error
	found    map[intent.Key][]rows.Problem
	since    map[rows.Problem]time.Time
	repairs  []repair // the last ones
	file     string   // of repairs, for a restart must not change what is told; "": none
}

// repair is what was set right, and when.
type repair struct {
	rows.Problem
	At time.Time
}

func newHealth() *health {
	set := metrics.New("node")
	return &health{
		set: set, node: metrics.NewNode(set), compiler: metrics.NewCompiler(set), offload: metrics.NewOffload(set), devices: metrics.NewDevices(set),
		notReady: errStarting, found: map[intent.Key][]rows.Problem{}, since: map[rows.Problem]time.Time{},
	}
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

// problems takes what is wrong with an object, and logs what is new.
func (h *health) problems(k intent.Key, list []rows.Problem) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.found[k]
	for _, p := range before {
		if !slices.Contains(list, p) {
			delete(h.since, p)
		}
	}
	if len(list) == 0 {
		delete(h.found, k)
		return
	}
	h.found[k] = list
	for _, p := range list {
		if _, known := h.since[p]; !known {
			h.since[p] = time.Now()
		}
		slog.Warn("problem", "object", p.Object, "field", p.Field, "message", p.Message)
	}
}

// repaired takes what was set right.
func (h *health) repaired(p rows.Problem) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.repairs = append(h.repairs, repair{p, time.Now()})
	h.repairs = h.repairs[max(0, len(h.repairs)-maxRepairs):]
	if h.file == "" {
		return
	}
	text, err := json.Marshal(h.repairs)
	if err == nil {
		err = durable.Write(h.file, 0o600, text)
	}
	if err != nil {
		slog.Warn("a repair is not told after a restart", "err", err)
	}
}

// remember takes up what an earlier process set right. A file that cannot be read is
// as none: it is told, and written anew with the next repair.
func (h *health) remember(file string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.file = file
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var list []repair
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		slog.Warn("repairs of an earlier process are not known", "err", err)
		return
	}
	h.repairs = append(list, h.repairs...)
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
	for _, db := range a.facts.databases() {
		if s := report.Databases[db]; !s.Up {
			fmt.Fprintf(w, "database %s is not up: %s\n", db, s.Err)
		}
	}
	for _, s := range report.Statuses {
		fmt.Fprintln(w, s)
	}
	for _, p := range slices.Concat(report.Problems, a.problems()) {
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
	h.repairs = slices.DeleteFunc(h.repairs, func(r repair) bool { return time.Since(r.At) > repairTold })
	for _, r := range h.repairs {
		out = append(out, r.Problem)
	}
	return out
}

// problemSince is when a problem found at the door was first seen; zero for others.
func (h *health) problemSince(p rows.Problem) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.since[p]
}

// serveHealth answers /healthz, /readyz, /status and /metrics.
func (a *agent) serveHealth(ctx context.Context) error {
	if a.cfg.Health == "" {
		return nil
	}
	mux := a.health.set.Handler(metrics.Probes{Ready: a.health.ready})
	mux.HandleFunc("/status", a.status)
	return metrics.Serve(ctx, a.cfg.Health, mux)
}
