package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/portolan-cni/portolan/pkg/version"
)

const namespace = "portolan"

// Set is the figures of one process.
type Set struct {
	process string
	ours    []prometheus.Collector
	all     *prometheus.Registry
	probes  atomic.Pointer[Probes] // nil until Handler
}

// New makes the figures that every process has: its version, Go's and the kernel's.
func New(process string) *Set {
	s := &Set{process: process, all: prometheus.NewRegistry()}
	s.all.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.gaugeVec("build_info", "1, with the version as a label.", "version").WithLabelValues(version.String()).Set(1)
	s.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: s.name("ready"), Help: "1 while the process does its work: what /readyz says.",
	}, s.ready))
	return s
}

// add registers a collector of ours. A name that is there already is a bug of this
// package, whose own test would find it.
func (s *Set) add(c prometheus.Collector) {
	s.all.MustRegister(c)
	s.ours = append(s.ours, c)
}

func (s *Set) name(what string) string { return prometheus.BuildFQName(namespace, s.process, what) }

func (s *Set) gauge(what, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: s.name(what), Help: help})
	s.add(g)
	return g
}

func (s *Set) gaugeVec(what, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: s.name(what), Help: help}, labels)
	s.add(v)
	return v
}

func (s *Set) counterVec(what, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: s.name(what), Help: help}, labels)
	s.add(v)
	return v
}

// milliseconds is a histogram of times from a tenth of a millisecond to a minute.
func (s *Set) milliseconds(what, help string, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: s.name(what), Help: help,
		Buckets: []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60000},
	}, labels)
	s.add(v)
	return v
}

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Probes are the answers to kubelet.
type Probes struct {
	// Healthy says why the process should be started anew; nil, or nil returned: it
	// should not.
	Healthy func() error
	// Ready says why the process does not do its work.
	Ready func() error
}

// Handler serves /metrics, /healthz and /readyz.
func (s *Set) Handler(p Probes) *http.ServeMux {
	s.probes.Store(&p)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.all, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	mux.HandleFunc("GET /healthz", probe(p.Healthy))
	mux.HandleFunc("GET /readyz", probe(p.Ready))
	return mux
}

func (s *Set) ready() float64 {
	p := s.probes.Load()
	if p == nil || p.Ready != nil && p.Ready() != nil {
		return 0
	}
	return 1
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if check != nil {
			if err := check(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = fmt.Fprintln(w, "ok") // else the asker has gone
	}
}

// Serve answers on a TCP address until ctx ends. An address that cannot be
// listened on is an error at once.
func Serve(ctx context.Context, bind string, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", bind)
	if err != nil {
		return fmt.Errorf("metrics and probes: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
