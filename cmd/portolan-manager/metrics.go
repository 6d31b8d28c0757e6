package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics is what this process tells Prometheus and kubelet of itself.
type metrics struct {
	registry  *prometheus.Registry
	nodes     prometheus.Gauge
	noID      prometheus.Gauge
	noSubnet  prometheus.Gauge
	conflicts prometheus.Gauge
	leader    prometheus.Gauge
	writes    *prometheus.CounterVec

	ready   atomic.Bool                  // an election has had a result, and if we lead, nodes are known
	healthy atomic.Pointer[func() error] // nil: nothing to complain of yet
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "portolan", Subsystem: "manager", Name: name, Help: help})
	}
	m := &metrics{
		registry:  prometheus.NewRegistry(),
		nodes:     gauge("nodes", "Nodes known to the leader."),
		noID:      gauge("node_ids_exhausted", "Nodes without an id because none is free."),
		noSubnet:  gauge("node_subnets_exhausted", "Nodes without a subnet of some family because none is free."),
		conflicts: gauge("node_conflicts", "Nodes whose annotated id or subnet is another node's or outside the plan."),
		leader:    gauge("leader", "1 while this process allocates."),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "portolan", Subsystem: "manager", Name: "node_writes_total", Help: "Patches of nodes by result.",
		}, []string{"result"}),
	}
	m.registry.MustRegister(m.nodes, m.noID, m.noSubnet, m.conflicts, m.leader, m.writes)
	return m
}

// show sets the gauges from what the allocator knows.
func (m *metrics) show(a *assigner) {
	m.nodes.Set(float64(len(a.state)))
	m.noID.Set(float64(a.count(reasonNoID)))
	m.noSubnet.Set(float64(a.count(reasonNoSubnet)))
	m.conflicts.Set(float64(a.count(reasonIDTaken, reasonSubnetTaken, reasonOutside)))
}

// handler serves /metrics, /healthz and /readyz.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if check := m.healthy.Load(); check != nil {
			if err := (*check)(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		answer(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !m.ready.Load() {
			http.Error(w, "waiting for the API server", http.StatusServiceUnavailable)
			return
		}
		answer(w, "ok")
	})
	return mux
}

func answer(w http.ResponseWriter, text string) {
	if _, err := fmt.Fprintln(w, text); err != nil {
		return // the asker has gone
	}
}

// server is the listening HTTP server.
type server struct {
	http *http.Server
	done chan error
}

// serve listens, and answers until Close.
func serve(bind string, m *metrics) (*server, error) {
	l, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s := &server{http: &http.Server{Handler: m.handler(), ReadHeaderTimeout: 5 * time.Second}, done: make(chan error, 1)}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// Close stops listening and waits for the server's goroutine.
func (s *server) Close() error {
	err := s.http.Close()
	if served := <-s.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
