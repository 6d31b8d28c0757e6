package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/pkg/metrics"
)

// figures is what this process tells Prometheus and kubelet of itself.
type figures struct {
	*metrics.Manager
	set *metrics.Set

	ready   atomic.Bool                  // an election has had a result, and if we lead, nodes are known
	healthy atomic.Pointer[func() error] // nil: nothing to complain of yet
}

func newMetrics() *figures {
	set := metrics.New("manager")
	return &figures{Manager: metrics.NewManager(set), set: set}
}

// show sets the gauges from what the allocator knows.
func (m *figures) show(a *assign.Assigner) {
	m.Show(metrics.Allocation{
		Nodes: a.Nodes(), WithoutID: a.Count(assign.ReasonNoID), WithoutSubnet: a.Count(assign.ReasonNoSubnet),
		Conflicts: a.Count(assign.ReasonIDTaken, assign.ReasonSubnetTaken, assign.ReasonOutside),
	})
}

// errWaiting is the state before an election has had a result.
var errWaiting = errors.New("waiting for the API server")

// handler serves /metrics, /healthz and /readyz.
func (m *figures) handler() http.Handler {
	return m.set.Handler(metrics.Probes{
		Healthy: func() error {
			if check := m.healthy.Load(); check != nil {
				return (*check)()
			}
			return nil
		},
		Ready: func() error {
			if !m.ready.Load() {
				return errWaiting
			}
			return nil
		},
	})
}

// server is the listening HTTP server.
type server struct {
	http *http.Server
	done chan error
}

// serve listens, and answers until Close.
func serve(bind string, m *figures) (*server, error) {
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
