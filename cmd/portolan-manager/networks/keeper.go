package networks

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	ipamclaims "github.com/k8snetworkplumbingwg/ipamclaims/pkg/crd/ipamclaims/v1alpha1"
	"k8s.io/client-go/dynamic"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// The pace: changes are gathered for a moment, or longer where deciding takes long: it
// has a fifth of one CPU; what failed is tried again; counts of pods, which change all
// the time, are written once in a while.
const (
	gather     = 50 * time.Millisecond
	gatherMost = 500 * time.Millisecond
	gatherFor  = 4 // times what the last decision took
	tryAgain   = 2 * time.Second
	countPause = time.Second
	writers    = 8
	ahead      = 64 // ids that the Lease has as given: it is written once for as many networks
)

// QPS is how many requests a second a Keeper's client may make, and twice that in a
// burst: a thousand definitions, created at once, settle in seconds. Never more than
// eight are under way, so that a server that is busy is not made busier.
const QPS = 200

// Config is what a Keeper is told, and whom it tells.
type Config struct {
	Client dynamic.Interface
	Plan   *intent.Cluster
	Log    *slog.Logger
	Now    func() time.Time
	// Timeout bounds a write.
	Timeout time.Duration
	// Recall reads how far ids were ever given, and Keep writes it, failing for who
	// leads no more.
	Recall func(context.Context) uint64
	Keep   func(ctx context.Context, high uint64) error
	// Found gets all that is wrong with definitions after each round.
	Found func([]Found)
	// Pools gets what users of DevicePools are to be told, when it changes; nil: nobody
	// is told.
	Pools func([]PoolFound)
}

// Found is one definition that is not as its writer wants it.
type Found struct {
	Definition string // "namespace/name"
	UID        string
	claims.Finding
}

// Keeper keeps Networks. Put, Delete, Synced, SetNode, DropNode and NodesHeard may be called
// from any goroutine.
type Keeper struct {
	Config
	log  *slog.Logger
	ids  *alloc.IDs
	high uint64        // on the Lease
	took time.Duration // to decide, the last time
	bell chan struct{} // holds one ring

	lastPools []PoolFound // as handed on

	mu      sync.Mutex // guards what follows
	world   claims.World
	nodes   map[string]map[string]string // labels
	reports map[string]v1alpha1.NodeNetworkStatus
	pods    map[string]podUse
	blocks  map[string]*v1alpha1.AddressBlock
	missing map[string]struct{}  // sources that have not delivered
	counted map[string]time.Time // when a network's status was written, by network
	owners  map[string]struct{}  // of ids

	ipam     map[string]*ipamclaims.IPAMClaim // by key
	bound    map[string]string                // every pod's node
	peopled  map[string]int                   // how many pods a node has
	departed map[string]time.Time             // nodes that blocks speak of: since when they are gone
	resting  map[string]time.Time             // entries of nobody: since when
	rests    map[string]struct{}              // those that there were at the last look
	claimed  map[string]map[string]struct{}   // blocks that have entries of an IPAMClaim, by claim

	wires       *tally                          // of PhysicalNetworks
	pools       *tally                          // of DevicePools
	devicePools map[string]*v1alpha1.DevicePool // by name
	poolSaid    map[string]map[string]said      // by pool and reason
	nodesHeard  bool                            // every NodeNetwork there was has been given

	userDefined map[string]*userDefined // by kind and key
	nads        map[string]*nad         // every definition, by key
	refused     map[string]refusal      // definitions that the server does not take, by key
}

// New makes a Keeper that does nothing until Run.
func New(c Config) *Keeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keeper{
		Config: c, log: c.Log, ids: alloc.NewNetworkIDs(alloc.RestConfig{Now: c.Now}), bell: make(chan struct{}, 1),
		world: claims.World{
			Plan: c.Plan, Definitions: map[string]*claims.Definition{}, Networks: map[string]*v1alpha1.Network{},
			Physical: map[string]*v1alpha1.PhysicalNetwork{}, Namespaces: map[string]map[string]string{},
			Uses: map[string]map[string]claims.Use{}, Blocks: map[string]claims.Blocks{},
		},
		nodes: map[string]map[string]string{}, reports: map[string]v1alpha1.NodeNetworkStatus{}, pods: map[string]podUse{},
		blocks: map[string]*v1alpha1.AddressBlock{}, missing: map[string]struct{}{}, counted: map[string]time.Time{},
		owners: map[string]struct{}{}, userDefined: map[string]*userDefined{}, nads: map[string]*nad{},
		refused: map[string]refusal{}, ipam: map[string]*ipamclaims.IPAMClaim{}, bound: map[string]string{}, peopled: map[string]int{},
		departed: map[string]time.Time{}, resting: map[string]time.Time{}, rests: map[string]struct{}{}, claimed: map[string]map[string]struct{}{},
	}
	k.wires, k.pools = newTally(k.nodes), newTally(k.nodes)
	k.devicePools, k.poolSaid = map[string]*v1alpha1.DevicePool{}, map[string]map[string]said{}
	for _, s := range []kube.Source{kube.Pods, kube.Namespaces, kube.Nodes, kube.Networks, kube.PhysicalNetworks} {
		k.missing[string(s)] = struct{}{}
	}
	for _, s := range k.sources() {
		k.missing[s.name] = struct{}{}
	}
	return k
}

func (k *Keeper) ring() {
	select {
	case k.bell <- struct{}{}:
	default:
	}
}

func (k *Keeper) heard(source string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.missing, source)
	k.ring()
}

// Run keeps Networks until ctx ends. Nothing is decided before every source has
// delivered what there is.
func (k *Keeper) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range k.sources() {
		wg.Go(func() { k.follow(ctx, s) })
	}
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-k.bell:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(max(gather, gatherFor*k.took), gatherMost)):
		}
		if !k.complete() {
			continue
		}
		if first {
			k.takeOver(ctx)
			first = false
		}
		if again := k.round(ctx); again > 0 {
			time.AfterFunc(again, k.ring)
		}
	}
}

func (k *Keeper) complete() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.missing) == 0
}

// takeOver reserves the ids that networks have, the oldest first; what was ever
// given and is free now rests.
func (k *Keeper) takeOver(ctx context.Context) {
	recalled := k.Recall(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	list := slices.SortedFunc(maps.Values(k.world.Networks), func(a, b *v1alpha1.Network) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	for _, n := range list {
		if n.Spec.ID != 0 && k.ids.Reserve(networkOf(n), n.Spec.ID) == nil {
			k.owners[networkOf(n)] = struct{}{}
		}
	}
	k.high = max(recalled, k.ids.High())
	k.ids.Hush(k.high)
}

// round brings everything to what is decided, and says when to look again.
func (k *Keeper) round(ctx context.Context) time.Duration {
	todo, found, err := k.decide(ctx)
	if err != nil {
		k.log.Warn("ids of networks not recorded on the Lease, will retry", "err", err)
		return tryAgain
	}
	again := k.carryOut(ctx, todo)
	again = sooner(again, k.tellPools())
	k.Found(found)
	return again
}

// tellPools hands on what is to be told of DevicePools, if it is another, and says when to
// look again.
func (k *Keeper) tellPools() time.Duration {
	k.mu.Lock()
	if !k.nodesHeard || k.Pools == nil {
		k.mu.Unlock()
		return 0
	}
	found, again := k.poolsFound()
	k.mu.Unlock()
	if !slices.Equal(found, k.lastPools) {
		k.Pools(found)
		k.lastPools = found
	}
	return again
}

// sooner is the first of two times to look again; 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// decide makes the round's decisions into writes.
func (k *Keeper) decide(ctx context.Context) ([]write, []Found, error) {
	begin := time.Now()
	k.mu.Lock()
	k.world.MTU = k.tunnelMTU()
	d := claims.Decide(&k.world)
	found := make([]Found, 0, len(d.Findings))
	for key, f := range d.Findings {
		found = append(found, Found{Definition: key, UID: k.world.Definitions[key].UID, Finding: f})
	}
	var todo []write
	for _, want := range d.Networks {
		if w, ok := k.networkWrite(want); ok {
			todo = append(todo, w)
		}
	}
	for _, name := range d.Gone {
		todo = append(todo, k.deletion(k.world.Networks[name]))
	}
	todo = append(todo, k.orphans(d)...)
	todo = append(todo, k.blockWrites()...)
	todo = append(todo, k.claimWrites()...)
	todo = append(todo, k.physicalWrites()...)
	todo = append(todo, k.poolWrites()...)
	todo = append(todo, k.userDefinedWrites()...)
	k.rest(d)
	k.mu.Unlock()
	k.took = time.Since(begin)
	if high := k.ids.High(); high > k.high {
		high += ahead
		ctx, cancel := context.WithTimeout(ctx, k.Timeout)
		defer cancel()
		if err := k.Keep(ctx, high); err != nil {
			return nil, nil, err
		}
		k.high = high
	}
	return todo, found, nil
}

// rest lets go the ids of networks that are gone with all their blocks.
func (k *Keeper) rest(d claims.Decision) {
	stay := map[string]struct{}{}
	for _, want := range d.Networks {
		stay[want.Spec.Name] = struct{}{}
	}
	for name := range k.owners {
		_, wanted := stay[name]
		if !wanted && k.world.Networks[name] == nil && k.world.Blocks[name].Count == 0 {
			k.ids.Release(name)
			delete(k.owners, name)
			delete(k.counted, name)
		}
	}
}
