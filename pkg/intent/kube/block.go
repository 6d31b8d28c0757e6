package kube

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// ParseBlock makes an AddressBlock's intent. What cannot be read of an entry is left
// out of it; the entry stays, for somebody has its place.
func ParseBlock(b *v1alpha1.AddressBlock) (*intent.Block, []rows.Problem) {
	out := &intent.Block{Network: b.Spec.Network, Slot: b.Spec.Slot, Node: b.Spec.Node}
	p := &problems{key: out.Key()}
	var err error
	if out.Subnets, err = parsePrefixes(b.Spec.Subnets); err != nil {
		p.field("spec.subnets", err)
	}
	for i, e := range b.Spec.Entries {
		entry := intent.BlockEntry{
			Key: out.Slot*v1alpha1.BlockSize + e.Offset + 1, Pod: e.Pod, UID: e.UID, Network: e.Attachment,
			Node: cmp.Or(e.Node, b.Spec.Node), Claim: e.Claim,
		}
		if entry.Addresses, err = parsePrefixes(e.Addresses); err != nil {
			p.field(fmt.Sprintf("spec.entries[%d].addresses", i), err)
		}
		if e.MAC != "" {
			if entry.MAC, err = parseMAC(e.MAC); err != nil {
				p.field(fmt.Sprintf("spec.entries[%d].mac", i), err)
			}
		}
		if e.EncapIP != "" {
			list, err := parseAddrs([]string{e.EncapIP})
			if err != nil {
				p.field(fmt.Sprintf("spec.entries[%d].encapIP", i), err)
			} else {
				entry.Encap = list[0]
			}
		}
		out.Entries = append(out.Entries, entry)
	}
	slices.SortFunc(out.Entries, func(a, b intent.BlockEntry) int { return cmp.Compare(a.Key, b.Key) })
	return out, p.list
}

// FormatBlock is the inverse of ParseBlock.
func FormatBlock(b *intent.Block) v1alpha1.AddressBlockSpec {
	out := v1alpha1.AddressBlockSpec{Network: b.Network, Slot: b.Slot, Node: b.Node}
	for _, s := range b.Subnets {
		out.Subnets = append(out.Subnets, s.String())
	}
	for _, e := range b.Entries {
		entry := v1alpha1.AddressEntry{
			Offset: e.Key - 1 - b.Slot*v1alpha1.BlockSize, MAC: e.MAC, Pod: e.Pod, UID: e.UID, Attachment: e.Network, Claim: e.Claim,
		}
		if e.Node != b.Node {
			entry.Node = e.Node
		}
		if e.Encap.IsValid() {
			entry.EncapIP = e.Encap.String()
		}
		for _, a := range e.Addresses {
			entry.Addresses = append(entry.Addresses, a.String())
		}
		out.Entries = append(out.Entries, entry)
	}
	return out
}
