package networks

import (
	"fmt"
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// claimKey is the IPAMClaim that a wish names, "namespace/name": of the pod's namespace.
func claimKey(w cni.Wish) string { return w.Pod.Namespace + "/" + w.Claim }

// mayHold checks the IPAMClaim that a wish names. portolan-manager gives a claim its
// addresses, as an entry of a block; the node that has the pod takes the entry over,
// and only while no other pod has it. n.mu is held.
func (n *Networks) mayHold(wish cni.Wish, w *network, spec *intent.Network) error {
	if wish.Claim == "" {
		return nil
	}
	key, definition := claimKey(wish), wish.Definition()
	if !spec.PersistentIPs {
		return fmt.Errorf("pod %s names IPAMClaim %s for definition %s, and addresses of network %s do not outlive a pod: leave ipam-claim-reference out, or set allowPersistentIPs in the definition",
			wish.Pod, key, definition, spec.Name)
	}
	c := n.held[key]
	if n.cfg.Local {
		return fmt.Errorf("IPAMClaim %s needs an API server, of which portolan-manager has it, and this node has none: leave ipam-claim-reference out", key)
	}
	if c == nil {
		return &cni.PendingError{Reason: fmt.Sprintf("IPAMClaim %s does not exist: create it, or correct ipam-claim-reference", key)}
	}
	if c.Network != spec.Name {
		return fmt.Errorf("IPAMClaim %s is of network %s, and definition %s of network %s: name a claim whose spec.network is %s",
			key, c.Network, definition, spec.Name, spec.Name)
	}
	e, ok := w.heldBy(key)
	switch {
	case !ok:
		return &cni.PendingError{Reason: fmt.Sprintf("IPAMClaim %s has no addresses of network %s yet: portolan-manager gives them; kubectl get ipamclaim -o yaml says why not", key, spec.Name)}
	case e.Pod == "" || e.UID == wish.Pod.UID && e.Network == wish.Key:
		return nil
	case e.UID == wish.Pod.UID:
		return fmt.Errorf("IPAMClaim %s is in use by the pod's interface of %s: a claim is one interface's", key, e.Network)
	}
	return &cni.PendingError{Reason: fmt.Sprintf("IPAMClaim %s (%v) is in use by pod %s on node %s: delete that pod, or name another claim", key, e.Addresses, e.Pod, e.Node)}
}

// heldBy is the entry that a claim holds.
func (w *network) heldBy(claim string) (intent.BlockEntry, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, slot := range slices.Sorted(maps.Keys(w.blocks)) {
		for _, e := range w.blocks[slot].Entries {
			if e.Claim == claim {
				return e, true
			}
		}
	}
	return intent.BlockEntry{}, false
}

// placeHeld is the place of the claim that a wish names.
func (w *network) placeHeld(wish cni.Wish) (int, error) {
	e, ok := w.heldBy(claimKey(wish))
	if !ok {
		return 0, fmt.Errorf("IPAMClaim %s holds no addresses of network %s", claimKey(wish), w.name)
	}
	return e.Key - 1, nil
}
