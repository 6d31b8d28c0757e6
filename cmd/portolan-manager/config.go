package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// Config is all that a portolan-manager is told.
type Config struct {
	ClusterSubnets []string // CIDR/LENGTH
	Namespace      string   // of the Lease
	Identity       string   // in the Lease
	MetricsBind    string   // host:port
	Client         kube.ClientConfig
}

func defaultConfig() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "" // Validate asks for --identity
	}
	return Config{
		Namespace: "portolan", Identity: host, MetricsBind: ":9411",
		Client: kube.ClientConfig{TokenFile: kube.DefaultTokenFile, CAFile: kube.DefaultCAFile, UserAgent: "portolan-manager"},
	}
}

// load fills in from the configuration file what no flag has set.
func (c *Config) load(file string) error {
	if file == "" {
		return nil
	}
	cluster, err := kube.ReadCluster(file)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	_, problems := kube.ParseCluster(cluster)
	var errs []error
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("configuration %s: %s: %s", file, p.Field, p.Message))
	}
	if len(c.ClusterSubnets) == 0 {
		c.ClusterSubnets = cluster.Spec.ClusterSubnets
	}
	if c.Client.APIServer == "" {
		c.Client.APIServer = cluster.Spec.APIServer
	}
	return errors.Join(errs...)
}

// Validate refuses what could not work.
func (c Config) Validate() error {
	var errs []error
	if _, err := kube.ParseClusterSubnets(c.ClusterSubnets); err != nil {
		errs = append(errs, err)
	}
	if c.Namespace == "" {
		errs = append(errs, errors.New("no namespace for the Lease: give --namespace"))
	}
	if c.Identity == "" {
		errs = append(errs, errors.New("no name for the Lease: give --identity"))
	}
	if _, _, err := net.SplitHostPort(c.MetricsBind); err != nil {
		errs = append(errs, fmt.Errorf("--metrics-bind: %w", err))
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}
