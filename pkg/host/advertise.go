package host

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/portolan-cni/portolan/pkg/host/dump"
	"github.com/portolan-cni/portolan/pkg/intent"
)

const (
	advertiseTable  = nftTable + "-advertisements"
	advertisePrefix = "on-"
	// advertiseRule drops router advertisements, which OVN lets pass above every ACL
	// (decision 31); neighbour discovery and all else go on.
	advertiseRule = "icmpv6 type nd-router-advert drop"
)

// refuseAdvertisements drops router advertisements that pods send, on the kernel
// datapath: the ingress hook comes before Open vSwitch takes the packet. (On the
// userspace datapath vswitchd reads before any hook: there only the receivers'
// settings help.) The hook is bound to devices, so each has a chain; they are made
// beside the calls that make the devices. The program is asked only when devices
// have come or gone since it was asked last.
func (p *pass) refuseAdvertisements(ctx context.Context) error {
	devices := []string{}
	if p.cfg.RefuseAdvertisements {
		links, err := dump.Whole(p.nl.LinkList)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		for _, l := range links {
			if l.Attrs().Group == intent.AttachmentGroup {
				devices = append(devices, l.Attrs().Name)
			}
		}
		slices.Sort(devices)
	}
	if p.advertised != nil && slices.Equal(devices, *p.advertised) {
		return nil
	}
	nft, err := knftables.New(knftables.NetDevFamily, advertiseTable)
	if err != nil {
		if len(devices) == 0 {
			return nil // no nft, so no table of ours either
		}
		return fmt.Errorf("refuse router advertisements of %s: %w", strings.Join(devices, ", "), err)
	}
	chains, err := nft.List(ctx, "chains")
	if err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("nftables table netdev %s: %w", advertiseTable, err)
	}
	if tx := advertiseTransaction(nft, devices, chains); tx != nil {
		if err := p.changed(nft.Run(ctx, tx), "refuse router advertisements of %d pods' devices", len(devices)); err != nil {
			return err
		}
	}
	p.advertised = &devices
	return nil
}

// advertiseTransaction brings chains to what devices need; nil when they are so.
func advertiseTransaction(nft knftables.Interface, devices, chains []string) *knftables.Transaction {
	tx, changes := nft.NewTransaction(), 0
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("written by Portolan: pods are no routers")})
	for _, d := range devices {
		name := advertisePrefix + d
		if slices.Contains(chains, name) {
			continue
		}
		changes++
		tx.Add(&knftables.Chain{Name: name, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.IngressHook),
			Priority: knftables.PtrTo(knftables.FilterPriority), Device: knftables.PtrTo(d)})
		tx.Add(&knftables.Rule{Chain: name, Rule: advertiseRule})
	}
	for _, name := range chains {
		if d, ours := strings.CutPrefix(name, advertisePrefix); ours && !slices.Contains(devices, d) {
			changes++
			tx.Delete(&knftables.Chain{Name: name})
		}
	}
	switch {
	case len(devices) == 0 && len(chains) > 0:
		tx = nft.NewTransaction()
		tx.Delete(&knftables.Table{})
	case changes == 0:
		return nil
	}
	return tx
}
