package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// podNetwork is one network's entry of k8s.ovn.org/pod-networks. The lone
// ip_address and gateway_ip repeat the first of each list, for older readers.
type podNetwork struct {
	Addresses []string `json:"ip_addresses"`
	MAC       string   `json:"mac_address"`
	Gateways  []string `json:"gateway_ips,omitempty"`
	Address   string   `json:"ip_address,omitempty"`
	Gateway   string   `json:"gateway_ip,omitempty"`
	Role      string   `json:"role,omitempty"`
	TunnelID  int      `json:"tunnel_id,omitempty"`
	// Encap is the tunnel address of an interface that has not the node's first. The key
	// is that of OVN-Kubernetes' enhancement 5535.
	Encap string `json:"encap_ip,omitempty"`
	// Routes are for who reads the annotation; what a pod's interface has of them
	// comes from its networks.
	Routes    []podRoute    `json:"routes,omitempty"`
	Bandwidth *podBandwidth `json:"bandwidth,omitempty"`
}

// podRoute is a route of an interface.
type podRoute struct {
	Destination string `json:"dest"`
	NextHop     string `json:"nextHop"`
}

// podBandwidth is intent.Bandwidth as the annotation has it: bits a second, bits.
type podBandwidth struct {
	IngressRate  int64 `json:"ingressRate,omitempty"`
	IngressBurst int64 `json:"ingressBurst,omitempty"`
	EgressRate   int64 `json:"egressRate,omitempty"`
	EgressBurst  int64 `json:"egressBurst,omitempty"`
}

// ParsePodNetworks parses k8s.ovn.org/pod-networks: the pod's interfaces, sorted
// by network.
func ParsePodNetworks(s string) ([]intent.Attachment, error) {
	var networks map[string]podNetwork
	if err := json.Unmarshal([]byte(s), &networks); err != nil {
		return nil, fmt.Errorf(`pod networks %q are not of the form {"default":{"ip_addresses":["10.244.1.5/24"],…}}: %w`, s, err)
	}
	out := make([]intent.Attachment, 0, len(networks))
	for name, n := range networks {
		a, err := n.attachment(name)
		if err != nil {
			return nil, fmt.Errorf("network %q: %w", name, err)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b intent.Attachment) int { return cmp.Compare(a.Network, b.Network) })
	return out, nil
}

func (n podNetwork) attachment(network string) (intent.Attachment, error) {
	if len(n.Addresses) == 0 && n.Address != "" {
		n.Addresses = []string{n.Address}
	}
	if len(n.Gateways) == 0 && n.Gateway != "" {
		n.Gateways = []string{n.Gateway}
	}
	a := intent.Attachment{Network: network}
	var err error
	if network == "" {
		return a, fmt.Errorf("a network has a name")
	}
	if a.MAC, err = parseMAC(n.MAC); err != nil {
		return a, fmt.Errorf("mac_address %w", err)
	}
	if a.Addresses, err = parsePrefixes(n.Addresses); err != nil {
		return a, fmt.Errorf("ip_addresses: %w", err)
	}
	if a.Gateways, err = parseAddrs(n.Gateways); err != nil {
		return a, fmt.Errorf("gateway_ips: %w", err)
	}
	if a.TunnelKey = n.TunnelID; a.TunnelKey < 0 || a.TunnelKey > lastPortKey {
		return a, fmt.Errorf("tunnel_id %d is none of 1 to %d", n.TunnelID, lastPortKey)
	}
	if n.Encap != "" {
		list, err := parseAddrs([]string{n.Encap})
		if err != nil {
			return a, fmt.Errorf("encap_ip: %w", err)
		}
		a.Encap = list[0]
	}
	if b := n.Bandwidth; b != nil {
		a.Bandwidth = intent.Limits(intent.Bandwidth(*b))
	}
	return a, nil
}

// FormatPodNetworks is the inverse of ParsePodNetworks. The default network's
// role is primary, every other's secondary.
func FormatPodNetworks(attachments []intent.Attachment) string {
	networks := make(map[string]podNetwork, len(attachments))
	for _, a := range attachments {
		n := podNetwork{MAC: a.MAC, Addresses: []string{}, Role: "secondary", TunnelID: a.TunnelKey}
		if a.Encap.IsValid() {
			n.Encap = a.Encap.String()
		}
		if a.Bandwidth != nil {
			b := podBandwidth(*a.Bandwidth)
			n.Bandwidth = &b
		}
		if a.Network == intent.DefaultNetwork {
			n.Role = "primary"
		}
		for _, p := range a.Addresses {
			n.Addresses = append(n.Addresses, p.String())
		}
		for _, g := range a.Gateways {
			n.Gateways = append(n.Gateways, g.String())
		}
		if len(n.Addresses) == 1 {
			n.Address = n.Addresses[0]
		}
		if len(n.Gateways) == 1 {
			n.Gateway = n.Gateways[0]
		}
		networks[a.Network] = n
	}
	return encode(networks)
}

// ParsePod makes a pod's intent; nil for a pod that has no interface of ours: it
// uses the host's network, has no node yet, or has run to completion.
func ParsePod(pod *corev1.Pod) (*intent.Pod, []rows.Problem) {
	if pod.Spec.HostNetwork || pod.Spec.NodeName == "" || completed(pod) {
		return nil, nil
	}
	out := &intent.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		Node: pod.Spec.NodeName, Labels: maps.Clone(pod.Labels),
	}
	p := &problems{key: out.Key()}
	out.Attachments, _ = read(p, pod.Annotations, AnnotationPodNetworks, ParsePodNetworks)
	n := intent.Notes{
		Mirror:    pod.Annotations[corev1.MirrorPodAnnotationKey],
		Selection: pod.Annotations[AnnotationSelection], Instead: pod.Annotations[AnnotationInstead], Status: pod.Annotations[AnnotationStatus],
	}
	n.Bandwidth.IngressRate, _ = read(p, pod.Annotations, AnnotationIngress, parseRate)
	n.Bandwidth.EgressRate, _ = read(p, pod.Annotations, AnnotationEgress, parseRate)
	out.Notes = n.Keep()
	return out, p.list
}

// parseRate parses a bandwidth as Kubernetes gives it, "10M", into bits a second;
// its limits are Kubernetes' own.
func parseRate(s string) (int64, error) {
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("bandwidth %q is not a quantity like 10M: %w", s, err)
	}
	if rate := q.Value(); rate >= 1e3 && rate <= 1e15 {
		return rate, nil
	}
	return 0, fmt.Errorf("bandwidth %q is not from 1k to 1P bits a second", s)
}

// completed tells whether no container of the pod will ever run again.
func completed(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
