package cni

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// concealTable is the nftables table, family netdev, that holds one ingress chain
// per concealed device.
const concealTable = "portolan-veth"

const concealPrefix = "hide-"

// NFTables conceals devices by an ingress chain that drops all: packet sockets,
// through which vswitchd reads, come before that hook.
type NFTables struct {
	nft knftables.Interface
}

// NewNFTables finds the nft program. Its calls run nft, so they belong to
// preparing a port, never to an ADD that finds one prepared.
func NewNFTables() (*NFTables, error) {
	nft, err := knftables.New(knftables.NetDevFamily, concealTable)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &NFTables{nft: nft}, nil
}

// Conceal implements Concealer.
func (n *NFTables) Conceal(ctx context.Context, device string) error {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	chain := &knftables.Chain{
		Name: concealPrefix + device, Device: &device, Type: knftables.PtrTo(knftables.FilterType),
		Hook: knftables.PtrTo(knftables.IngressHook), Priority: knftables.PtrTo(knftables.BaseChainPriority("0")),
		Policy: knftables.PtrTo(knftables.DropPolicy),
	}
	tx.Add(chain)
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("hiding %s from the node's stack: %w", device, err)
	}
	return nil
}

// Reveal implements Concealer. Kernels before 6.16 drop a chain with its device;
// later ones keep it.
func (n *NFTables) Reveal(ctx context.Context, devices []string) error {
	return n.removeIf(ctx, func(device string) bool { return slices.Contains(devices, device) })
}

// Sweep implements Concealer.
func (n *NFTables) Sweep(ctx context.Context, keep []string) error {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // from the start, so that a first pod leaves nothing more than a last
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("making table netdev %s: %w", concealTable, err)
	}
	return n.removeIf(ctx, func(device string) bool { return !slices.Contains(keep, device) })
}

// Clear removes the table with every chain; no error when there is none.
func (n *NFTables) Clear(ctx context.Context) error {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // deleting what is not there would be an error
	tx.Delete(&knftables.Table{})
	if err := n.nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("removing table netdev %s: %w", concealTable, err)
	}
	return nil
}

// removeIf removes the chains there are of some devices: a chain that is not there
// would fail the whole transaction.
func (n *NFTables) removeIf(ctx context.Context, which func(device string) bool) error {
	chains, err := n.nft.List(ctx, "chains")
	if knftables.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing table netdev %s: %w", concealTable, err)
	}
	var found []string
	for _, chain := range chains {
		device, ours := strings.CutPrefix(chain, concealPrefix)
		if ours && which(device) {
			found = append(found, chain)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return n.remove(ctx, found)
}

func (n *NFTables) remove(ctx context.Context, chains []string) error {
	tx := n.nft.NewTransaction()
	for _, c := range chains {
		tx.Delete(&knftables.Chain{Name: c})
	}
	if err := n.nft.Run(ctx, tx); err != nil && !knftables.IsNotFound(err) {
		return fmt.Errorf("removing chains from table netdev %s: %w", concealTable, err)
	}
	return nil
}
