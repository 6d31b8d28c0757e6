package networks

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	ipamclaims "github.com/k8snetworkplumbingwg/ipamclaims/pkg/crd/ipamclaims/v1alpha1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/places"
)

// What an IPAMClaim's condition says; the first three reasons are OVN-Kubernetes'.
const (
	ipsAllocated       = "IPsAllocated"
	reasonAllocated    = "SuccessfulAllocation"
	reasonExhausted    = "SubnetExhausted"
	reasonConflict     = "IPAddressConflict"
	reasonNoNetwork    = "NetworkNotFound"
	reasonNotPersisted = "PersistentIPsNotAllowed"
)

// holds reports whether a claim is the one holder of a place of a network: it exists,
// is of the network, and has no other place, which two leaders could have given it.
func (k *Keeper) holds(claim, network string, key int) bool {
	c := k.ipam[claim]
	if c == nil || c.Spec.Network != network {
		return false
	}
	e, ok := k.heldBy(c)
	return !ok || e.Key == key
}

// heldBy is the entry that a claim holds: of several the one that a pod has, then the
// one that its status names.
func (k *Keeper) heldBy(c *ipamclaims.IPAMClaim) (best intent.BlockEntry, found bool) {
	rank := func(e intent.BlockEntry) int {
		switch {
		case e.Pod != "":
			return 2
		case slices.Equal(texts(e.Addresses), c.Status.IPs):
			return 1
		}
		return 0
	}
	claim := c.Namespace + "/" + c.Name
	for _, name := range slices.Sorted(maps.Keys(k.claimed[claim])) {
		b, _ := kube.ParseBlock(k.blocks[name])
		for _, e := range b.Entries {
			if e.Claim == claim && b.Network == c.Spec.Network && (!found || rank(e) > rank(best)) {
				best, found = e, true
			}
		}
	}
	return best, found
}

func texts(list []netip.Prefix) []string {
	out := make([]string, 0, len(list))
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}

// claimWrites give IPAMClaims their addresses, and tell them.
func (k *Keeper) claimWrites() []write {
	var out []write
	now := round{blocks: map[string]map[int]*intent.Block{}, chosen: map[string]map[int]bool{}}
	keys := slices.SortedFunc(maps.Keys(k.ipam), func(a, b string) int {
		if order := k.ipam[a].CreationTimestamp.Compare(k.ipam[b].CreationTimestamp.Time); order != 0 {
			return order
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys {
		c := k.ipam[key]
		network, refusal := k.persistent(c)
		e, ok := k.heldBy(c)
		if refusal == nil && !ok {
			var place int
			if place, refusal = k.choose(network, c, now); refusal == nil {
				now.chosen[network.Name][place] = true
				out = append(out, k.hold(network, key, place))
				continue // what it has is told in the next round
			}
		}
		if refusal == nil || ok {
			refusal = &metav1.Condition{Status: metav1.ConditionTrue, Reason: reasonAllocated, Message: "IP addresses successfully allocated"}
		}
		if w, differs := k.claimStatus(key, c, e, *refusal); differs {
			out = append(out, w)
		}
	}
	return out
}

// round is what one look at claims has read, and chosen.
type round struct {
	blocks map[string]map[int]*intent.Block // by network and slot
	chosen map[string]map[int]bool          // places, by network
}

// of is what is known of a network's places.
func (r round) of(k *Keeper, network string) (map[int]*intent.Block, map[int]bool) {
	if r.blocks[network] == nil {
		r.blocks[network], r.chosen[network] = map[int]*intent.Block{}, map[int]bool{}
		for _, b := range k.blocks {
			if b.Spec.Network == network {
				r.blocks[network][b.Spec.Slot], _ = kube.ParseBlock(b)
			}
		}
	}
	return r.blocks[network], r.chosen[network]
}

func refuse(reason, format string, args ...any) *metav1.Condition {
	return &metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// persistent is the network of a claim, or why it gives the claim nothing.
func (k *Keeper) persistent(c *ipamclaims.IPAMClaim) (*intent.Network, *metav1.Condition) {
	n := k.world.Networks[c.Spec.Network]
	if n == nil || len(n.Spec.Definitions) == 0 {
		return nil, refuse(reasonNoNetwork, "there is no network %s with an accepted definition: spec.network is a network's name, as kubectl get networks lists them", c.Spec.Network)
	}
	parsed, _ := kube.ParseNetwork(n)
	if parsed == nil || !parsed.PersistentIPs {
		return nil, refuse(reasonNotPersisted, "addresses of network %s do not outlive a pod: set allowPersistentIPs in its definitions, which layer2 and localnet networks with subnets may have", c.Spec.Network)
	}
	return parsed, nil
}

// choose is a place for a claim: that of the addresses it has already, else a free one,
// first of blocks that no node leases.
func (k *Keeper) choose(n *intent.Network, c *ipamclaims.IPAMClaim, now round) (int, *metav1.Condition) {
	blocks, taken := now.of(k, n.Name)
	holder := func(place int) string {
		if b := blocks[place/v1alpha1.BlockSize]; b != nil {
			for _, e := range b.Entries {
				if e.Key == place+1 {
					return "held by " + nameOf(e)
				}
			}
		}
		if taken[place] {
			return "being given to another IPAMClaim"
		}
		return ""
	}
	had := -1
	for _, text := range c.Status.IPs {
		p, err := netip.ParsePrefix(text)
		place, ok := 0, false
		if err == nil {
			place, ok = places.Of(n, p.Addr())
		}
		switch {
		case !ok || had >= 0 && place != had:
			return 0, refuse(reasonConflict, "status.ips has %s, which network %s does not give: delete the claim and make it anew", text, n.Name)
		case holder(place) != "":
			return 0, refuse(reasonConflict, "status.ips has %s, which is %s: delete that, or make the claim anew", text, holder(place))
		}
		had = place
	}
	if had >= 0 {
		return had, nil
	}
	for _, leased := range []bool{false, true} {
		for place := range places.Count(n) {
			b := blocks[place/v1alpha1.BlockSize]
			if leased == (b != nil && b.Node != "") && holder(place) == "" && places.Usable(n, place) && !places.Reserved(n, place) {
				return place, nil
			}
		}
	}
	return 0, refuse(reasonExhausted, "no address left in network %s: delete pods or IPAMClaims that hold some, or give the network a larger subnet", n.Name)
}

func nameOf(e intent.BlockEntry) string {
	switch {
	case e.Pod != "":
		return "pod " + e.Pod
	case e.Claim != "":
		return "IPAMClaim " + e.Claim
	}
	return "nobody, for it rests a minute"
}

// hold writes a claim's entry, if the place is still free and the claim has none.
func (k *Keeper) hold(n *intent.Network, key string, place int) write {
	slot := place / v1alpha1.BlockSize
	entry := intent.BlockEntry{Key: place + 1, Addresses: places.Addresses(n, place), Claim: key}
	name := fmt.Sprintf("%s.%d", v1alpha1.NetworkObjectName(n.Name), slot)
	there := k.blocks[name] != nil
	return write{object: "IPAMClaim/" + key, do: func(ctx context.Context) error {
		if !there {
			err := k.makeBlock(ctx, name, &intent.Block{Network: n.Name, Slot: slot, Entries: []intent.BlockEntry{entry}})
			if !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		return k.changeBlock(ctx, name, func(b *intent.Block) error {
			if !slices.ContainsFunc(b.Entries, func(e intent.BlockEntry) bool { return e.Key == entry.Key || e.Claim == key }) {
				entry.Node = b.Node
				b.Entries = append(b.Entries, entry)
			}
			return nil
		})
	}}
}

// claimStatus is what brings a claim's status to what it holds; false: it is so.
func (k *Keeper) claimStatus(key string, c *ipamclaims.IPAMClaim, e intent.BlockEntry, cond metav1.Condition) (write, bool) {
	want := ipamclaims.IPAMClaimStatus{IPs: c.Status.IPs}
	if cond.Status == metav1.ConditionTrue {
		want.IPs = texts(e.Addresses)
	}
	if want.IPs == nil {
		want.IPs = []string{}
	}
	if _, pod, ok := strings.Cut(e.Pod, "/"); ok {
		want.OwnerPod = &ipamclaims.OwnerPod{Name: pod}
	}
	cond.Type, cond.ObservedGeneration = ipsAllocated, c.Generation
	cond.LastTransitionTime = metav1.NewTime(k.Now().Truncate(time.Second))
	for _, old := range c.Status.Conditions {
		if old.Type == cond.Type && old.Status == cond.Status {
			cond.LastTransitionTime = old.LastTransitionTime
		}
	}
	want.Conditions = []metav1.Condition{cond}
	if equality.Semantic.DeepEqual(c.Status, want) {
		return write{}, false
	}
	return write{object: "IPAMClaim/" + key, do: func(ctx context.Context) error {
		status, err := fields(want, []string{"ips", "ownerPod", "conditions"})
		if err != nil {
			return err
		}
		u, err := k.patchOf(ctx, kube.ClaimResource(), c.ObjectMeta, patch{Status: status}, "status")
		if err != nil {
			return err
		}
		next, err := decode[ipamclaims.IPAMClaim](u)
		if err == nil {
			k.setClaim(key, next)
		}
		return err
	}}, true
}

// setClaim takes an IPAMClaim; nil: it is gone.
func (k *Keeper) setClaim(key string, c *ipamclaims.IPAMClaim) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.ipam[key]
	switch {
	case c == nil:
		delete(k.ipam, key)
	case old != nil && old.UID == c.UID && !newer(old.ResourceVersion, c.ResourceVersion):
		return
	default:
		k.ipam[key] = c
	}
	k.ring()
}
