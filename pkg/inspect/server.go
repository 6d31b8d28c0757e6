package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Source is the process that a Server answers for.
type Source struct {
	Identity  Identity
	Engine    *engine.Engine
	Driver    Driver
	Databases []DB
	// Ready says why the process does not do its work; nil: it does.
	Ready func() error
	// Problems are those found outside the engine; nil: there are none.
	Problems func() []rows.Problem
	// Since tells from when on one of Problems has been so; nil: nobody knows.
	Since func(rows.Problem) time.Time
	// Mode tells Identity's Mode; nil: the process serves no node.
	Mode func() string
	// Kinds make the second engine, for plans; Door reads their manifests, and leaves
	// the Node of a pod empty that has none yet. nil: there are no plans.
	Kinds []engine.UnitKind
	Door  func(text []byte) ([]intent.Object, []rows.Problem)
	// Pod tells how far a pod has come, as far as the engine does not know it; nil: the
	// process attaches none.
	Pod func(context.Context, *intent.Pod) (Pod, error)
	// Devices tells of a node's devices; nil: the process keeps none.
	Devices func(context.Context) (Devices, error)
	// Foresee says what a plan's definitions come to, which portolan-manager decides; with
	// remove, what their deletion does. nil: they are of no network.
	Foresee func(have, manifest []intent.Object, remove bool) Foresight
	// Settings are the flags; Cluster is the text of the Cluster file.
	Settings []Setting
	Cluster  string
	// Record writes the flight recorder's file; nil: nothing is recorded.
	Record func(ctx context.Context, w io.Writer) error
}

// Foresight is what the cluster would make of a manifest before its rows are written.
type Foresight struct {
	Objects  []intent.Object // that come or change with it
	Gone     []intent.Key    // that go
	Notes    []string
	Problems []rows.Problem
}

// Driver runs a function where the engine may be used: *ovsdb.Driver.
type Driver interface {
	Do(ctx context.Context, fn func()) error
}

// Still drives an engine that nobody steps: of files that were compiled, or of a
// recording.
type Still struct{}

// Do runs fn at once.
func (Still) Do(_ context.Context, fn func()) error { fn(); return nil }

// DB is a database as a Server asks it: *ovsdb.Conn.
type DB interface {
	DB() rows.DB
	State() ovsdb.State
	// Read takes a snapshot that is nobody's but the reader's.
	Read(ctx context.Context) (engine.Snapshot, error)
}

// Server answers the API's questions.
type Server struct {
	src Source
	mux *http.ServeMux
}

// NewServer makes a server; it is an http.Handler.
func NewServer(src Source) *Server {
	s := &Server{src: src, mux: http.NewServeMux()}
	s.handle("GET "+PathStatus, func(r *http.Request) (any, error) { return s.Status(r.Context()) })
	s.handle("GET "+PathConfig, func(*http.Request) (any, error) {
		return Config{Identity: src.Identity, Settings: src.Settings, Cluster: src.Cluster}, nil
	})
	s.handle("GET "+PathUnits, func(r *http.Request) (any, error) { return s.Units(r.Context()) })
	s.handle("GET "+PathRows, func(r *http.Request) (any, error) { return s.Rows(r.Context(), filterOf(r.URL.Query())) })
	s.handle("GET "+PathEdges, func(r *http.Request) (any, error) { return s.Edges(r.Context(), filterOf(r.URL.Query())) })
	s.handle("GET "+PathExplain, func(r *http.Request) (any, error) { return s.Explain(r.Context(), r.URL.Query().Get("q")) })
	s.handle("GET "+PathDiff, func(r *http.Request) (any, error) { return s.Diff(r.Context()) })
	s.handle("GET "+PathPod, func(r *http.Request) (any, error) { return s.Pod(r.Context(), r.URL.Query().Get("name")) })
	s.handle("GET "+PathDevices, func(r *http.Request) (any, error) { return s.Devices(r.Context()) })
	s.handle("GET "+PathNetworks, func(r *http.Request) (any, error) { return s.Networks(r.Context()) })
	s.handle("POST "+PathPlan, func(r *http.Request) (any, error) {
		text, err := io.ReadAll(io.LimitReader(r.Body, largestManifest))
		if err != nil {
			return nil, err
		}
		return s.Plan(r.Context(), text, r.URL.Query().Get("delete") == "true")
	})
	s.mux.HandleFunc("GET "+PathRecord, s.record)
	return s
}

// record sends the flight recorder's file.
func (s *Server) record(w http.ResponseWriter, r *http.Request) {
	if s.src.Record == nil {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(Failure{Error: "this process records nothing"})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	// What is cut off, its reader knows: a recording has an end.
	_ = s.src.Record(r.Context(), w)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// patience bounds the time that a question may take.
const patience = 30 * time.Second

// largestManifest bounds a manifest, in bytes.
const largestManifest = 64 << 20

// userError is a question that cannot be answered as it was put.
type userError struct {
	Failure
	code int
}

func (e *userError) Error() string { return e.Failure.Error }

func refuse(code int, format string, args ...any) error {
	return &userError{Failure{Error: fmt.Sprintf(format, args...)}, code}
}

// handle answers a pattern with a value as JSON, or with a Failure.
func (s *Server) handle(pattern string, fn func(*http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		v, err := fn(r.WithContext(ctx))
		code := http.StatusOK
		if err != nil {
			v, code = failure(err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(v) // the asker is gone, or reads what there is
	})
}

func failure(err error) (Failure, int) {
	var u *userError
	if errors.As(err, &u) {
		return u.Failure, u.code
	}
	return Failure{Error: err.Error()}, http.StatusServiceUnavailable
}

// Serve answers on a unix socket that only root may use, until ctx ends.
func Serve(ctx context.Context, path string, h http.Handler) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("inspect socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
