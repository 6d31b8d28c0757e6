package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/foresee"
	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/metrics"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/tools"
	"github.com/portolan-cni/portolan/pkg/trace"
	"github.com/portolan-cni/portolan/pkg/trace/walk"
	"github.com/portolan-cni/portolan/pkg/version"
)

// serveInspect answers questions about the engine on a unix socket.
func (a *agent) serveInspect(ctx context.Context) error {
	if a.cfg.Inspect == "" {
		return nil
	}
	text, err := os.ReadFile(a.cfg.File)
	if err != nil {
		return err
	}
	src := inspect.Source{
		Identity: inspect.Identity{
			Process: "portolan-node", Version: version.String(), Node: a.cfg.Node, Zone: a.facts.plan.Zone,
			Datapath: string(a.facts.datapath), Started: time.Now().UTC().Truncate(time.Second),
		},
		Engine: a.engine, Driver: a.driver, Ready: a.health.ready,
		Problems: a.problems,
		Since:    a.health.problemSince,
		Mode: func() string {
			return cni.Mode(a.cfg.CNIConfDir, filepath.Base(cni.DefaultConflist))
		},
		Pod:     a.progress,
		Devices: a.listDevices,
		Kinds:   compile.Kinds(),
		Door: func(text []byte) ([]intent.Object, []rows.Problem) {
			return kube.DecodePending(text, a.zoning())
		},
		Foresee:  foresee.Networks,
		Settings: a.cfg.settings(), Cluster: string(text),
		Record: func(_ context.Context, w io.Writer) error { return a.recorder.Dump(w) },
	}
	for _, db := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		if c := a.conns[db]; c != nil {
			src.Databases = append(src.Databases, c)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/", inspect.NewServer(src))
	if sb := a.conns[rows.SB]; sb != nil {
		mux.Handle("GET "+trace.Endpoint, &walk.Walker{
			Zone: a.facts.plan.Zone, SB: a.cfg.SB, Engine: a.engine, Driver: a.driver, Flows: sb,
		})
	}
	mux.Handle("GET "+offload.Path, offload.Handler(a.offload.answer))
	endpoints := tools.Databases{OVS: a.cfg.OVS}
	if a.conns[rows.SB] != nil {
		endpoints.NB, endpoints.SB = a.cfg.NB, a.cfg.SB
	}
	mux.Handle(tools.Path, tools.Handler(endpoints))
	mux.Handle(tools.Path+"/", tools.Handler(endpoints))
	mux.Handle("GET /metrics", a.health.set.Handler(metrics.Probes{Ready: a.health.ready}))
	err = inspect.Serve(ctx, a.cfg.Inspect, mux)
	if err != nil && !errors.Is(err, context.Canceled) {
		// Pods are served without it.
		slog.Error("nobody can ask this agent", "err", err)
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
