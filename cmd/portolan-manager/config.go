package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// Config is all that a portolan-manager is told.
type Config struct {
	ClusterSubnets []string          // CIDR/LENGTH
	Cluster        *v1alpha1.Cluster // the file's content; nil: no file
	Namespace      string            // of the Lease
	Identity       string            // in the Lease
	MetricsBind    string            // host:port
	Client         kube.ClientConfig

	Databases       []netip.Addr  // of a global zone, whose certificates are issued here; nil: none
	CertificateLife time.Duration // renewed when a third of it is left
}

func defaultConfig() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "" // Validate asks for --identity
	}
	return Config{
		Namespace: "portolan", Identity: host, MetricsBind: ":9411", CertificateLife: certificateLife,
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
	c.Cluster = cluster
	_, problems := kube.ParseCluster(cluster)
	var errs []error
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("configuration %s: %s: %s", file, p.Field, p.Message))
	}
	databases, err := zone.Parse(cluster.Spec)
	if err != nil {
		errs = append(errs, fmt.Errorf("configuration %s: %w", file, err))
	}
	c.Databases = databases.Servers
	if len(c.ClusterSubnets) == 0 {
		c.ClusterSubnets = cluster.Spec.ClusterSubnets
	}
	if c.Client.APIServer == "" {
		c.Client.APIServer = cluster.Spec.APIServer
	}
	return errors.Join(errs...)
}

// plan is the cluster's, as units read it who render no zone.
func (c Config) plan() *intent.Cluster {
	cluster := v1alpha1.Cluster{}
	if c.Cluster != nil {
		cluster = *c.Cluster
	}
	cluster.Spec.ClusterSubnets = c.ClusterSubnets
	plan, _ := kube.ParseCluster(&cluster) // load and Validate have refused any problem
	plan.Zone = ""
	return plan
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
	if c.CertificateLife < time.Minute {
		errs = append(errs, fmt.Errorf("--certificate-life is %s: a minute is the least that kubelet's delay leaves room for", c.CertificateLife))
	}
	if _, _, err := net.SplitHostPort(c.MetricsBind); err != nil {
		errs = append(errs, fmt.Errorf("--metrics-bind: %w", err))
	}
	return errors.Join(append(errs, c.Client.Validate())...)
}
