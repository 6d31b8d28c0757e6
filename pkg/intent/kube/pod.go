package kube

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

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
	return a, nil
}

// FormatPodNetworks is the inverse of ParsePodNetworks. The default network's
// role is primary, every other's secondary.
func FormatPodNetworks(attachments []intent.Attachment) string {
	networks := make(map[string]podNetwork, len(attachments))
	for _, a := range attachments {
		n := podNetwork{MAC: a.MAC, Addresses: []string{}, Role: "secondary"}
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
		Node: pod.Spec.NodeName, Labels: maps.Clone(pod.Labels), Mirror: pod.Annotations[corev1.MirrorPodAnnotationKey],
	}
	p := &problems{key: out.Key()}
	out.Attachments, _ = read(p, pod.Annotations, AnnotationPodNetworks, ParsePodNetworks)
	return out, p.list
}

// completed tells whether no container of the pod will ever run again.
func completed(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}
