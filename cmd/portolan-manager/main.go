// Command portolan-manager does what is done once for the whole cluster: it gives
// every node its id and its subnets and every network its id, and says in Events what
// is wrong with objects, whoever has found it. Several may run; a Lease elects the one that acts. It writes
// only to the Kubernetes API.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/networks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "portolan-manager:", err)
		os.Exit(1)
	}
}

// command is the command line: flags over the configuration file over defaults.
func command() *cobra.Command {
	cfg := defaultConfig()
	var file string
	c := &cobra.Command{
		Use: "portolan-manager", Short: "Allocate node ids and node subnets, and tell what is wrong, cluster-wide",
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := cfg.load(file); err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			klog.SetSlogLogger(log)
			err := run(c.Context(), cfg, log)
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "configuration `file` that holds a Cluster of portolan.io/v1alpha1")
	f.StringSliceVar(&cfg.ClusterSubnets, "cluster-subnets", nil, "pods' prefixes as `CIDR/LENGTH` of a node's subnet, e.g. 10.244.0.0/16/24; overrides the file's")
	f.StringVar(&cfg.Namespace, "namespace", cfg.Namespace, "namespace of the Lease")
	f.StringVar(&cfg.Identity, "identity", cfg.Identity, "name of this process in the Lease; unique")
	f.StringVar(&cfg.MetricsBind, "metrics-bind", cfg.MetricsBind, "`address` of /metrics, /healthz and /readyz")
	f.DurationVar(&cfg.CertificateLife, "certificate-life", cfg.CertificateLife, "how long the certificates of a global zone are valid; they are renewed when a third is left")
	cfg.Client.AddFlags(f)
	return c
}

// run connects, serves and takes part in the election until ctx ends.
func run(ctx context.Context, cfg Config, log *slog.Logger) error {
	client, err := cfg.Client.Connect()
	if err != nil {
		return err
	}
	nodes, err := cfg.Client.ConnectNodeNetworks()
	if err != nil {
		return err
	}
	objects, err := cfg.Client.ConnectResources(networks.QPS)
	if err != nil {
		return err
	}
	m := newMetrics()
	server, err := serve(cfg.MetricsBind, m)
	if err != nil {
		return err
	}
	defer func() {
		if err := server.Close(); err != nil {
			log.Warn("metrics server not closed", "err", err)
		}
	}()
	return elect(ctx, election{cfg: cfg, client: client, networks: nodes, objects: objects, log: log, metrics: m})
}
