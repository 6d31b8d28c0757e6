package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// nftTable is the name of every nftables table of ours; they have no other users.
const nftTable = "portolan"

// setHidden drops what arrives on hidden NICs before the kernel's stack sees it.
// Packet sockets, vswitchd's among them, are served before the ingress hook.
func (p *pass) setHidden(ctx context.Context) error {
	var nics []string
	for _, h := range p.cfg.Hidden {
		if _, err := p.nl.LinkByName(h.NIC); err == nil {
			nics = append(nics, h.NIC)
		}
		if h.Bridge == "" {
			continue
		}
		if _, err := p.nl.LinkByName(h.Bridge); err != nil {
			return nil
		}
	}
	nft, err := knftables.New(knftables.NetDevFamily, nftTable)
	if err != nil {
		if len(nics) == 0 {
			return nil // no nft, so no table of ours either
		}
		return fmt.Errorf("hide %s: %w", strings.Join(nics, ", "), err)
	}
	have, err := nft.List(ctx, "chains")
	if err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("nftables table netdev %s: %w", nftTable, err)
	}
	want := hiddenChains(nics)
	if names := chainNames(want); sameNames(names, have) {
		return nil
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if len(want) > 0 {
		tx.Add(&knftables.Table{Comment: knftables.PtrTo("written by Portolan: vswitchd owns these NICs' traffic")})
	}
	for i := range want {
		tx.Add(&want[i])
	}
	return p.changed(nft.Run(ctx, tx), "hide %s", strings.Join(nics, ", "))
}

// HideAttachments hides pods' devices, as Set does with Config.HideAttachments. The
// agent calls it before it serves the first pod, whatever else the host waits for.
func (k *Kernel) HideAttachments(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return (&pass{Kernel: k, cfg: Config{HideAttachments: true}}).hideAttachments(ctx)
}

// hideAttachments drops what arrives on pods' devices before it is routed. One rule
// serves all pods that come and go: a device is in the group from its birth, so
// nothing is written for it. What the rule does not see, the devices' settings shut
// off: ARP is not answered there, and IPv6 is off.
func (p *pass) hideAttachments(ctx context.Context) error {
	nft, err := knftables.New(knftables.InetFamily, nftTable)
	if err != nil {
		if !p.cfg.HideAttachments {
			return nil // no nft, so no table of ours either
		}
		return fmt.Errorf("hide pods' devices: %w", err)
	}
	const chain = "attachments"
	have, err := nft.List(ctx, "chains")
	if err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("nftables table inet %s: %w", nftTable, err)
	}
	if slices.Contains(have, chain) == p.cfg.HideAttachments && len(have) < 2 {
		return nil
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if p.cfg.HideAttachments {
		tx.Add(&knftables.Table{Comment: knftables.PtrTo("written by Portolan: vswitchd owns pods' traffic")})
		tx.Add(&knftables.Chain{Name: chain, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.PreroutingHook),
			Priority: knftables.PtrTo(knftables.BaseChainPriority("-450"))}) // before defragmentation and connection tracking
		tx.Add(&knftables.Rule{Chain: chain, Rule: fmt.Sprintf("iifgroup %d drop", intent.AttachmentGroup)})
	}
	return p.changed(nft.Run(ctx, tx), "hide pods' devices")
}

// hiddenChains are the chains for NICs, with an empty one whose name says which
// NICs they are for: chains can be listed by name only.
func hiddenChains(nics []string) []knftables.Chain {
	if len(nics) == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(strings.Join(nics, "\n")))
	chains := []knftables.Chain{{Name: "for-" + hex.EncodeToString(sum[:8])}}
	for i, nic := range nics {
		chains = append(chains, knftables.Chain{
			Name: fmt.Sprintf("hide-%d", i), Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.IngressHook),
			Priority: knftables.PtrTo(knftables.FilterPriority), Policy: knftables.PtrTo(knftables.DropPolicy),
			Device: knftables.PtrTo(nic),
		})
	}
	return chains
}

func chainNames(chains []knftables.Chain) []string {
	var names []string
	for _, c := range chains {
		names = append(names, c.Name)
	}
	return names
}

func sameNames(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
