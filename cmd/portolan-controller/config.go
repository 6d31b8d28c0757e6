package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// Config is all that a portolan-controller is told.
type Config struct {
	File   string // the Cluster file (ConfigMap portolan-config)
	Files  string // directory of tls.crt, tls.key and ca.crt
	NodeIP string // of the databases' servers: which of spec.databases is here
	Kube   kube.ClientConfig
	Health string // listen address of /healthz, /readyz, /status, /metrics

	Inspect string // unix socket on which the engine can be asked about; "": none
}

func defaults() *Config {
	return &Config{
		NodeIP: os.Getenv("NODE_IP"), // kubelet expands no variables in the commands of hooks
		File:   "/etc/portolan/cluster.yaml", Files: string(zone.DefaultFiles), Health: "127.0.0.1:9412", Inspect: inspect.DefaultSocket,
		Kube: kube.ClientConfig{TokenFile: kube.DefaultTokenFile, CAFile: kube.DefaultCAFile, UserAgent: "portolan-controller"},
	}
}

func (c *Config) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.File, "config", c.File, "Cluster `file`")
	f.StringVar(&c.Files, "tls-dir", c.Files, "`directory` of tls.crt, tls.key and ca.crt; not read where the Cluster file says insecureDatabases")
	f.StringVar(&c.NodeIP, "node-ip", c.NodeIP, "this node's `address` among spec.databases, for the databases' servers; default: the variable NODE_IP")
	f.StringVar(&c.Health, "health-bind", c.Health, "`address` of /healthz, /readyz, /status and /metrics; empty: none")
	f.StringVar(&c.Inspect, "inspect-socket", c.Inspect, "unix `socket` on which portolan asks about the engine; empty: none")
	c.Kube.AddFlags(f)
}

// place is what the Cluster file says that a controller and its daemons need.
type place struct {
	plan      *intent.Cluster
	databases zone.Databases
	files     zone.Files // "" for plain TCP
}

// load reads the Cluster file, and refuses what cannot work.
func (c *Config) load() (place, error) {
	spec, err := kube.ReadCluster(c.File)
	if err != nil {
		return place{}, err
	}
	plan, problems := kube.ParseCluster(spec)
	for _, p := range problems {
		err = errors.Join(err, fmt.Errorf("%s: %s: %s", c.File, p.Field, p.Message))
	}
	databases, wrong := zone.Parse(spec.Spec)
	if wrong != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", c.File, wrong))
	}
	if !plan.GlobalZone {
		err = errors.Join(err, fmt.Errorf(`%s: spec.zone is %q: each node's own agent writes its databases, and no portolan-controller must run; set it to "global", or delete the Deployment`, c.File, spec.Spec.Zone))
	}
	if c.Kube.APIServer == "" {
		c.Kube.APIServer = spec.Spec.APIServer
	}
	out := place{plan: plan, databases: databases, files: zone.Files(c.Files)}
	if databases.Insecure {
		out.files = ""
	}
	return out, err
}

// tls is how connections of our own prove who they are.
func (p place) tls() (*tls.Config, error) { return p.files.Config() }
