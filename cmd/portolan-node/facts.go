package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// facts is what the agent finds out about its machine before it changes anything.
type facts struct {
	spec     *v1alpha1.Cluster
	plan     *intent.Cluster
	gateway  host.Gateway
	datapath intent.Datapath
	reason   string // why that datapath
	chassis  string
}

// discover reads the plan and the machine. It fails with what the operator has
// to change; the pod is restarted meanwhile.
func discover(cfg *Config, kernel *host.Kernel, ovs *host.OVS) (facts, error) {
	var f facts
	spec, err := kube.ReadCluster(cfg.File)
	if err != nil {
		return f, err
	}
	plan, problems := kube.ParseCluster(spec)
	for _, p := range problems {
		err = errors.Join(err, fmt.Errorf("%s: %s: %s", cfg.File, p.Field, p.Message))
	}
	if err != nil {
		return f, err
	}
	if !plan.GlobalZone {
		plan.Zone = cfg.Node
	}
	f.spec, f.plan = spec, plan
	if f.datapath, f.reason, err = datapath(spec, kernel); err != nil {
		return f, err
	}
	bridge := spec.Spec.Gateway.Bridge
	if bridge == "" {
		bridge = "br-ex"
	}
	var ips []netip.Addr
	if cfg.NodeIP != "" {
		ips = append(ips, netip.MustParseAddr(cfg.NodeIP)) // validated
	}
	f.gateway, err = kernel.Discover(host.Options{
		NodeIPs: ips, RunDir: cfg.HostRun,
		Interface: spec.Spec.Gateway.Interface, Bridge: bridge, Force: spec.Spec.Gateway.Takeover == "force",
		BridgeNIC: ovs.BridgeNIC,
	})
	if err != nil {
		return f, err
	}
	if f.gateway.Foreign != "" && f.gateway.Foreign != f.datapath {
		// Patch ports do not cross datapaths.
		f.datapath, f.reason = f.gateway.Foreign, "bridge "+f.gateway.Bridge+" has it"
	}
	if spec.Spec.MTU == 0 {
		plan.MTU = f.gateway.PodMTU(f.encapIPs())
	}
	f.chassis, err = chassisID(cfg.StateDir)
	return f, err
}

// datapath is the operator's choice, or the kernel's where it can.
func datapath(spec *v1alpha1.Cluster, kernel *host.Kernel) (intent.Datapath, string, error) {
	if d := spec.Spec.Datapath; d != "" {
		return intent.Datapath(d), "spec.datapath says so", nil
	}
	return kernel.DetectDatapath()
}

// chassisID is this machine's OVN chassis name, made once and kept.
func chassisID(dir string) (string, error) {
	file := filepath.Join(dir, "system-id")
	data, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(data)) != "" {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("chassis id: %w", err)
	}
	id := uuid.NewString()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("chassis id: %w", err)
	}
	if err := os.WriteFile(file+".new", []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("chassis id: %w", err)
	}
	return id, os.Rename(file+".new", file)
}

// encapIPs are the tunnel end points: the gateway's first address of one family,
// IPv4 where there is one, since all tunnels of a cluster must be of one family.
func (f facts) encapIPs() []netip.Addr {
	p, ok := f.gateway.PrimaryAddress()
	if !ok {
		return nil
	}
	return []netip.Addr{p.Addr()}
}

// host is the intent of this machine.
func (f facts) host(cfg *Config) *intent.Host {
	h := &intent.Host{
		Node: cfg.Node, Chassis: f.chassis, Datapath: f.datapath, Bridge: f.gateway.Bridge,
		BridgeMAC: f.gateway.MAC, BridgeMTU: f.gateway.MTU, EncapIPs: f.encapIPs(), Remote: cfg.SB,
	}
	if f.gateway.Foreign == "" {
		h.NIC = f.gateway.NIC
	}
	return h
}

// own is this node with what its agent knows better than any annotation of an
// earlier run: the rest is what the API server says.
func (f facts) own(n *intent.Node) *intent.Node {
	own := *n
	own.Chassis, own.EncapIPs = f.chassis, f.encapIPs()
	own.Gateway = intent.Gateway{
		Bridge: f.gateway.Bridge, Interface: f.gateway.NIC, MAC: f.gateway.MAC,
		Addresses: f.gateway.Addresses, NextHops: f.nextHops(),
	}
	return &own
}

// annotations are what the other nodes, and the controller, have to know.
func (f facts) annotations(cfg *Config) map[string]string {
	return kube.AgentAnnotations(f.own(&intent.Node{Name: cfg.Node}), f.plan.GatewayVLAN)
}

// nextHops are the operator's, or those of the NIC's default routes.
func (f facts) nextHops() []netip.Addr {
	var hops []netip.Addr
	for _, s := range f.spec.Spec.Gateway.NextHops {
		if a, err := netip.ParseAddr(s); err == nil { // ParseCluster has refused others
			hops = append(hops, a)
		}
	}
	if hops == nil {
		hops = f.gateway.NextHops()
	}
	return hops
}

// log says once what was found, and what does not fit.
func (f facts) log(cfg *Config) {
	slog.Info("node", "pod_mtu", f.plan.MTU, "node", cfg.Node, "zone", f.plan.Zone, "chassis", f.chassis,
		"datapath", f.datapath, "because", f.reason, "nic", f.gateway.NIC, "bridge", f.gateway.Bridge, "encap", f.encapIPs())
	for _, p := range f.gateway.CheckMTU(cfg.Node, f.plan.MTU, f.encapIPs()) {
		slog.Warn("problem", "object", p.Object, "field", p.Field, "message", p.Message)
	}
}
