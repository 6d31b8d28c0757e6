package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// facts is what the agent finds out about its machine before it changes anything.
type facts struct {
	spec     *v1alpha1.Cluster
	plan     *intent.Cluster
	gateway  host.Gateway
	datapath intent.Datapath
	reason   string // why that datapath
	chassis  string
	remote   string   // the SB database as ovn-controller is told it
	wait     int      // WaitBeforeClear of an earlier run, in milliseconds; 0: none
	tunnels  *tunnels // nil: the node has its first tunnel address alone
}

// databases are those that this agent writes: in a global zone only its own
// switch's, since the controller writes the others for all nodes.
func (f facts) databases() []rows.DB {
	if f.plan.GlobalZone {
		return []rows.DB{rows.OVS}
	}
	return []rows.DB{rows.OVS, rows.NB, rows.SB}
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
	f.spec, f.plan, f.remote = spec, plan, cfg.SB
	if plan.GlobalZone {
		central, err := zone.Parse(spec.Spec)
		if err != nil {
			return f, fmt.Errorf("%s: %w", cfg.File, err)
		}
		f.remote = central.Endpoint(rows.SB)
	} else {
		plan.Zone = cfg.Node
	}
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
	if spec.Spec.MTU == 0 && !plan.GlobalZone { // there, one MTU is rendered for all nodes
		plan.MTU = f.gateway.PodMTU(f.encapIPs())
	}
	f.chassis, err = chassisID(cfg.StateDir)
	return f, err
}

// multi is who attaches pods to the networks that they name.
func (f facts) multi() string {
	return cmp.Or(f.spec.Spec.MultiNetwork, cni.Native)
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
	if err := durable.Write(file, 0o600, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("chassis id: %w", err)
	}
	return id, nil
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

// allEncapIPs are the tunnel addresses that the node has, that of encapIPs first.
func (f facts) allEncapIPs() []netip.Addr {
	if f.tunnels == nil {
		return f.encapIPs()
	}
	return f.tunnels.all()
}

// host is the intent of this machine.
func (f facts) host(node string) *intent.Host {
	h := &intent.Host{
		Node: node, Chassis: f.chassis, Datapath: f.datapath, Bridge: f.gateway.Bridge,
		BridgeMAC: f.gateway.MAC, BridgeMTU: f.gateway.MTU, EncapIPs: f.allEncapIPs(), Remote: f.remote,
		WaitBeforeClear: f.wait,
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
	own.Chassis, own.EncapIPs = f.chassis, f.allEncapIPs()
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

// annotated reports whether the API server has a node's annotations already: an
// agent that restarts writes nothing, not even what is there. The VLAN is not read
// back from them; with one they are always written.
func (f facts) annotated(said *intent.Node, want map[string]string) bool {
	if f.plan.GatewayVLAN != 0 {
		return false
	}
	have := kube.AgentAnnotations(said, 0)
	for key, val := range want {
		if have[key] != val {
			return false
		}
	}
	return true
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
	for _, p := range f.warnings(cfg) {
		slog.Warn("problem", "object", p.Object, "field", p.Field, "message", p.Message)
	}
}

// warnings are what does not fit but works.
func (f facts) warnings(cfg *Config) []rows.Problem {
	return slices.Concat(f.gateway.CheckMTU(cfg.Node, f.plan.MTU, f.encapIPs()), f.gateway.CheckNear(cfg.Node, planned(f.plan)))
}

// planned are the plan's networks by the fields of the Cluster file.
func planned(c *intent.Cluster) []host.Planned {
	return []host.Planned{
		{Field: "spec.clusterSubnets", Nets: c.PodSubnets}, {Field: "spec.serviceSubnets", Nets: c.ServiceNets},
		{Field: "spec.joinSubnets", Nets: c.JoinSubnets}, {Field: "spec.transitSubnets", Nets: c.TransitNets},
		{Field: "spec.masqueradeSubnets", Nets: c.Masquerade},
	}
}

// identify refuses to be a node that another machine is. It is asked before the
// agent writes anything, to the API server or a database.
func (a *agent) identify(ctx context.Context) error {
	of, err := kube.NodeAddresses(ctx, a.client, a.cfg.Node)
	if err != nil {
		return fmt.Errorf("node %s: %w", a.cfg.Node, err)
	}
	var here []netip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, addr := range addrs {
		if p, err := netip.ParsePrefix(addr.String()); err == nil {
			here = append(here, p.Addr())
		}
	}
	if err := kube.CheckIdentity(a.cfg.Node, of, here); err != nil {
		return refused{err}
	}
	return nil
}
