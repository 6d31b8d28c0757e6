// Package node starts, finds and crashes the lab's nodes from outside. A node
// is a process tree in namespaces of its own (network, mount, uts, ipc, pid,
// cgroup) under one cgroup; package nodeinit is what runs inside, as its PID 1.
// What a node is, is its Spec; that it runs is only ever read from the kernel
// (who is in its cgroup), never from a pid file that could be stale.
package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Spec is everything a node's init must know, as a file.
type Spec struct {
	Name         string         `json:"name"`
	Registers    string         `json:"registers"` // the Node's name; Name's but for a machine that was renamed
	IPs          []netip.Addr   `json:"ips"`
	ControlPlane bool           `json:"controlPlane"`
	API          netip.AddrPort `json:"api"`
	PodCIDRs     []netip.Prefix `json:"podCIDRs"`     // of the cluster
	ServiceCIDRs []netip.Prefix `json:"serviceCIDRs"` // of the cluster
	NodePodCIDRs []netip.Prefix `json:"nodePodCIDRs"` // of this node, for the stand-in CNI
	StandIn      bool           `json:"standIn"`      // write the stand-in CNI's configuration
	Hosts        []string       `json:"hosts"`        // lines of /etc/hosts

	State string `json:"state"` // directory on a real file system; survives a reboot of the node
	Run   string `json:"run"`   // directory for this start's mounts
	PKI   string `json:"pki"`
	Kube  string `json:"kube"` // directory of the Kubernetes programs
	Base  string `json:"base"` // root of the base system with OVN's tools
}

// DNS is the cluster's name server: the tenth service address, as everywhere.
// Nothing answers there unless somebody installs it.
func (s Spec) DNS() netip.Addr {
	a := s.ServiceCIDRs[0].Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// Logs is where the node's programs log, seen from outside; inside it is /var/log.
func (s Spec) Logs() string { return filepath.Join(s.State, "log") }

func (s Spec) path() string { return filepath.Join(s.State, "spec.json") }

// Save writes the spec where ReadSpec finds it.
func (s Spec) Save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Logs(), 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.path(), b, 0o644)
}

// ReadSpec reads the spec in a node's state directory.
func ReadSpec(state string) (Spec, error) {
	var s Spec
	b, err := os.ReadFile(filepath.Join(state, "spec.json"))
	if err != nil {
		return s, fmt.Errorf("node in %s: %w", state, err)
	}
	return s, json.Unmarshal(b, &s)
}
