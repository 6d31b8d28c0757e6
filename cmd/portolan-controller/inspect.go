package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/foresee"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/metrics"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/record"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/tools"
	"github.com/portolan-cni/portolan/pkg/trace"
	"github.com/portolan-cni/portolan/pkg/trace/walk"
	"github.com/portolan-cni/portolan/pkg/version"
)

// inspected is the engine that can be asked about, with what moves it.
type inspected struct {
	engine   *engine.Engine
	driver   *ovsdb.Driver
	nb       *ovsdb.Conn
	recorder *record.Recorder
}

// serveInspect answers questions about the engine on a unix socket of the pod.
func (c *Config) serveInspect(ctx context.Context, p place, h *health, of inspected) error {
	if c.Inspect == "" {
		return nil
	}
	text, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+trace.Endpoint, &walk.Walker{
		Zone: p.plan.Zone, SB: p.databases.Endpoint(rows.SB), TLS: p.files.Flags(), Engine: of.engine, Driver: of.driver,
		Flows: walk.Dialed(ovsdb.Config{DB: rows.SB, Endpoint: p.databases.Endpoint(rows.SB), Zone: p.plan.Zone, TLS: p.tls}),
	})
	dumps := tools.Handler(tools.Databases{
		NB: p.databases.Endpoint(rows.NB), SB: p.databases.Endpoint(rows.SB), TLS: p.files.Flags(),
	})
	mux.Handle(tools.Path, dumps)
	mux.Handle(tools.Path+"/", dumps)
	mux.Handle("GET /metrics", h.set.Handler(metrics.Probes{Ready: h.ready}))
	mux.Handle("/", inspect.NewServer(inspect.Source{
		Identity: inspect.Identity{
			Process: "portolan-controller", Version: version.String(), Zone: p.plan.Zone, Started: time.Now().UTC().Truncate(time.Second),
		},
		Engine: of.engine, Driver: of.driver, Databases: []inspect.DB{of.nb}, Ready: h.ready, Problems: h.list,
		Kinds:   compile.Kinds(),
		Foresee: foresee.Networks,
		Door: func(text []byte) ([]intent.Object, []rows.Problem) {
			return kube.DecodePending(text, kube.ZoneGlobal)
		},
		Settings: c.settings(), Cluster: string(text),
		Record: func(_ context.Context, w io.Writer) error { return of.recorder.Dump(w) },
	}))
	err = inspect.Serve(ctx, c.Inspect, mux)
	if err != nil && !errors.Is(err, context.Canceled) {
		// The zone is written without it.
		slog.Error("nobody can ask this controller", "err", err)
	}
	return nil
}

// settings are the flags with the values that hold.
func (c *Config) settings() []inspect.Setting {
	of := *c // adding a flag sets it to its default, which is what it is
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	of.addFlags(f)
	var out []inspect.Setting
	f.VisitAll(func(flag *pflag.Flag) {
		out = append(out, inspect.Setting{Name: flag.Name, Value: flag.Value.String()})
	})
	return out
}
