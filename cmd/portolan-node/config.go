package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/portolan-cni/portolan/pkg/cni/delegate"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/sriov"
)

// Config is all that the agent is told.
type Config struct {
	Node       string // the Node object's name
	NodeIP     string // the address that the kubelet has told the API server; "": not known
	HostRun    string // the machine's /run, where network daemons keep state
	File       string // the Cluster file (ConfigMap portolan-config)
	IntentDir  string // YAML files instead of an API server; "": the API server
	Kube       kube.ClientConfig
	Namespace  string // of the portolan-managers and their Lease
	OVS        string // Open_vSwitch endpoint
	NB, SB     string // the databases of a zone that is this node
	StateDir   string // what must survive a reboot
	Socket     string // CNI requests
	CNIBinary  string // our plugin, copied to CNIBinDir
	CNIBinDir  string
	CNIConfDir string
	HostRoot   string // the machine's file system, in which plugins of others are executed; "": this one
	Inspect    string // unix socket of the read-only API; "": none
	Sys        string // the kernel's sysfs
	KubeletDir string // the kubelet's own, with device-plugins and pod-resources; "": there is none
	DeviceDir  string // device information files, as the network plumbing group's specification has them; "": none
	CDIDir     string // device files are told containers by CDI alone, in this directory; "": one by one
	Health     string // listen address of /healthz, /readyz, /status, /metrics
}

func defaults() *Config {
	return &Config{
		HostRun: "/run", File: "/etc/portolan/cluster.yaml",
		Kube:      kube.ClientConfig{TokenFile: kube.DefaultTokenFile, CAFile: kube.DefaultCAFile, UserAgent: "portolan-node"},
		Namespace: "portolan",
		OVS:       "unix:/run/openvswitch/db.sock", NB: "unix:/run/ovn/ovnnb_db.sock", SB: "unix:/run/ovn/ovnsb_db.sock",
		StateDir: "/var/lib/portolan", Socket: "/run/portolan/cni.sock",
		CNIBinary: "/usr/bin/portolan-cni", CNIBinDir: "/opt/cni/bin", CNIConfDir: "/etc/cni/net.d",
		Sys: sriov.DefaultSys, KubeletDir: "/var/lib/kubelet", DeviceDir: "/run/k8s.cni.cncf.io/devinfo/dp",
		Inspect: inspect.DefaultSocket, Health: "127.0.0.1:9410",
	}
}

func (c *Config) addFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Node, "node-name", c.Node, "`name` of this node's Node object")
	f.StringVar(&c.NodeIP, "node-ip", c.NodeIP, "the node's `address`, by which the gateway NIC is found; empty: by the default route")
	f.StringVar(&c.HostRun, "host-run", c.HostRun, "the machine's /run `directory`, as seen from here")
	f.StringVar(&c.File, "config", c.File, "Cluster `file`")
	f.StringVar(&c.IntentDir, "intent-dir", c.IntentDir, "`directory` of YAML files to take intent from, instead of an API server")
	f.StringVar(&c.Namespace, "namespace", c.Namespace, "`namespace` of portolan-manager's Lease")
	f.StringVar(&c.OVS, "ovs-db", c.OVS, "Open_vSwitch database `endpoint`")
	f.StringVar(&c.NB, "nb-db", c.NB, "northbound database `endpoint`; in a global zone the configuration file names it")
	f.StringVar(&c.SB, "sb-db", c.SB, "southbound database `endpoint`; in a global zone the configuration file names it")
	f.StringVar(&c.StateDir, "state-dir", c.StateDir, "`directory` that survives a reboot")
	f.StringVar(&c.Socket, "cni-socket", c.Socket, "unix `socket` of CNI requests")
	f.StringVar(&c.CNIBinary, "cni-binary", c.CNIBinary, "the plugin `file` to install")
	f.StringVar(&c.CNIBinDir, "cni-bin-dir", c.CNIBinDir, "`directory` of the runtime's plugins")
	f.StringVar(&c.CNIConfDir, "cni-conf-dir", c.CNIConfDir, "`directory` of the runtime's network configuration")
	f.StringVar(&c.HostRoot, "host-root", c.HostRoot, "the machine's root `directory`, in which CNI plugins of others are executed; empty: this one")
	f.StringVar(&c.Sys, "sysfs", c.Sys, "`directory` of the kernel's sysfs, writable, in which NICs and their functions are found")
	f.StringVar(&c.KubeletDir, "kubelet-dir", c.KubeletDir, "the kubelet's `directory`, whose device-plugins and pod-resources have the sockets by which devices are offered and looked up; not used with --intent-dir")
	f.StringVar(&c.DeviceDir, "device-dir", c.DeviceDir, "`directory` of the information files of devices that the kubelet has given; empty: none")
	f.StringVar(&c.CDIDir, "cdi-dir", c.CDIDir, "`directory` of CDI files, by which alone containers get device files; empty: the kubelet is told of each file")
	f.StringVar(&c.Inspect, "inspect-socket", c.Inspect, "unix `socket` of the read-only API that portolan asks; empty: none")
	f.StringVar(&c.Health, "health-bind", c.Health, "`address` of /healthz, /readyz, /status and /metrics; empty: none")
	c.Kube.AddFlags(f)
}

// Validate refuses what cannot work, before anything is changed.
func (c *Config) Validate() error {
	var errs []error
	if c.Node == "" {
		errs = append(errs, errors.New("--node-name is missing: it must be the name of this machine's Node object"))
	}
	if c.NodeIP != "" {
		if _, err := netip.ParseAddr(c.NodeIP); err != nil {
			errs = append(errs, fmt.Errorf("--node-ip: %w", err))
		}
	}
	for flag, v := range map[string]string{"--config": c.File, "--ovs-db": c.OVS, "--nb-db": c.NB, "--sb-db": c.SB, "--state-dir": c.StateDir, "--cni-socket": c.Socket} {
		if v == "" {
			errs = append(errs, fmt.Errorf("%s is empty", flag))
		}
	}
	return errors.Join(errs...)
}

// delegates says how plugins of others are run.
func (c *Config) delegates() delegate.Config {
	return delegate.Config{Root: c.HostRoot, BinDir: c.CNIBinDir, State: filepath.Join(c.StateDir, "plugins")}
}

// repairs is the file in which the agent remembers what it has set right.
func (c *Config) repairs() string { return filepath.Join(c.StateDir, "repairs") }

// journal is the file in which the agent remembers addresses over a restart.
func (c *Config) journal() string { return filepath.Join(c.StateDir, "addresses") }
