package host

import (
	"fmt"
	"net/netip"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// What Geneve with OVN's option adds to an inner IP packet, in bytes: Ethernet
// 14, outer IP 20 or 40, UDP 8, Geneve 8, option 8.
const (
	geneveOverIPv4 = 58
	geneveOverIPv6 = 78
)

// GeneveOverhead is what tunnels between these end points add, in bytes; none
// counts as IPv4.
func GeneveOverhead(encapIPs []netip.Addr) int {
	for _, a := range encapIPs {
		if a.Is6() {
			return geneveOverIPv6
		}
	}
	return geneveOverIPv4
}

// PodMTU is the largest MTU that pods can have on this NIC, in bytes.
func (g Gateway) PodMTU(encapIPs []netip.Addr) int { return g.MTU - GeneveOverhead(encapIPs) }

// CheckMTU reports a NIC that is too small for the MTU that pods are given.
func (g Gateway) CheckMTU(node string, podMTU int, encapIPs []netip.Addr) []rows.Problem {
	need := podMTU + GeneveOverhead(encapIPs)
	if g.MTU >= need {
		return nil
	}
	return []rows.Problem{{
		Object: "Node/" + node, Field: "mtu", Severity: rows.Error,
		Message: fmt.Sprintf("NIC %s has MTU %d, pods are configured for %d, Geneve needs %d: large packets to other nodes "+
			"will be lost; raise the NIC's MTU to %d or set --mtu to %d", g.NIC, g.MTU, podMTU, need, need, g.PodMTU(encapIPs)),
	}}
}
