package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/cmd/portolan-manager/networks"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/fold"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The pace of telling. News are gathered for a moment: what repairs itself at once,
// such as an annotation that is set back, is then not told as a problem.
const (
	gather    = time.Second
	tryAgain  = 30 * time.Second
	lookAgain = 10 * time.Minute // for Events that grow old
	patience  = time.Minute      // for sources that do not deliver
)

// crier finds what is wrong with objects, whoever sees it, and says it in Events.
//
//	API server ─> door ─> engine without a database ─┐
//	allocation, NodeNetworks ────────────────────────┴─> board ─> teller
//
// Nothing is said before all have been heard: half of what is known could take back
// what an earlier leader has said, and say it anew a moment later.
type crier struct {
	client   kube.Client
	networks kube.NodeNetworks
	plan     *intent.Cluster
	log      *slog.Logger
	board    *fold.Board
	teller   *kube.Teller
	engine   *engine.Engine
	driver   *ovsdb.Driver
	told     func(statements int, writes uint64) // after each round
	stated   map[intent.Key]kube.Target          // what has been said, and of which pod of a name
	keeper   *networks.Keeper                    // is handed what is watched; may be nil
	taps     map[kube.Source]kube.Tap            // of those who need more of an object than its intent

	definitions map[intent.Key]string // UIDs of those that something is wrong with; of the loop
	pools       map[intent.Key]string // those of DevicePools

	mu      sync.Mutex // guards what follows
	posted  []func()   // to run on the loop
	missing map[string]struct{}
	bell    chan struct{} // holds one ring
}

// The sources besides those of the watch.
const (
	fromAllocation   = "allocation"
	fromNodeNetworks = "nodenetworks"
	fromClaims       = "claims"
	fromPools        = "devicepools"
)

func newCrier(client kube.Client, nodes kube.NodeNetworks, plan *intent.Cluster, log *slog.Logger) *crier {
	c := &crier{
		client: client, networks: nodes, plan: plan, log: log, board: fold.NewBoard(),
		teller: kube.NewTeller(client, "portolan-manager"), told: func(int, uint64) {}, bell: make(chan struct{}, 1),
		stated: map[intent.Key]kube.Target{}, taps: map[kube.Source]kube.Tap{},
		missing: map[string]struct{}{fromAllocation: {}, fromNodeNetworks: {}},
	}
	for _, s := range []kube.Source{kube.Nodes, kube.Namespaces, kube.Pods} {
		c.missing[string(s)] = struct{}{}
	}
	// No database: rows are discarded, problems are kept (decision 14).
	c.engine = engine.New(engine.Config{Kinds: compile.Kinds(), Bug: func(err error) { log.Error("bug in a unit", "err", err) }})
	c.driver = ovsdb.NewDriver(ovsdb.DriverConfig{Logger: log, Observe: func(s ovsdb.StepStats) {
		if s.Events > 1 { // more than the time
			c.post(nil)
		}
	}}, c.engine)
	return c
}

// post runs fn on the loop, soon; nil only wakes it.
func (c *crier) post(fn func()) {
	c.mu.Lock()
	if fn != nil {
		c.posted = append(c.posted, fn)
	}
	c.mu.Unlock()
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// heard notes that a source has delivered what it had.
func (c *crier) heard(source string) {
	c.mu.Lock()
	delete(c.missing, source)
	c.mu.Unlock()
	c.post(nil)
}

// allocated takes what is wrong with a node's allocation.
func (c *crier) allocated(node string, findings []assign.Finding) {
	var found []fold.Found
	for _, f := range findings {
		if !f.Done() { // that is done, and told as it happens
			found = append(found, fold.Found{Object: intent.Key{Kind: intent.KindNode, Name: node}, Reason: f.Reason, Message: f.Message})
		}
	}
	c.post(func() { c.board.Set(fromAllocation+"/"+node, found) })
}

// happened says what has been done about a node's annotations.
func (c *crier) happened(ctx context.Context, node string, f assign.Finding) {
	c.post(func() {
		if err := c.teller.Happened(ctx, kube.NodeTarget(node), f.Reason, f.Message); err != nil {
			c.log.Warn("not told", "err", err)
		}
	})
}

// follow hands the keeper what is watched here, and waits for what it finds. It is
// called before run.
func (c *crier) follow(k *networks.Keeper) {
	c.keeper = k
	maps.Copy(c.taps, k.Taps())
	for _, source := range []string{fromClaims, string(kube.Networks), string(kube.PhysicalNetworks)} {
		c.missing[source] = struct{}{}
	}
}

// claimed takes what is wrong with definitions.
func (c *crier) claimed(list []networks.Found) {
	uids := map[intent.Key]string{}
	var found []fold.Found
	for _, f := range list {
		key := intent.Key{Kind: intent.KindDefinition, Name: f.Definition}
		uids[key] = f.UID
		found = append(found, fold.Found{Object: key, Reason: "Network" + f.Reason, Message: f.Message})
	}
	c.post(func() {
		c.board.Set(fromClaims, found)
		c.definitions = uids
	})
	c.heard(fromClaims)
}

// pooled takes what is to be told of DevicePools.
func (c *crier) pooled(list []networks.PoolFound) {
	uids := map[intent.Key]string{}
	var found []fold.Found
	for _, f := range list {
		key := intent.Key{Kind: intent.KindDevicePool, Name: f.Pool}
		uids[key] = f.UID
		found = append(found, fold.Found{Object: key, Reason: f.Reason, Message: f.Message})
	}
	c.post(func() {
		c.board.Set(fromPools, found)
		c.pools = uids
	})
}

// Put, Delete and Synced are the watch's sink.
func (c *crier) Put(o intent.Object) {
	c.driver.Sink().Put(o)
	if c.keeper != nil {
		c.keeper.Put(o)
	}
}

// Delete is one that is gone.
func (c *crier) Delete(k intent.Key) {
	c.driver.Sink().Delete(k)
	if c.keeper != nil {
		c.keeper.Delete(k)
	}
}

// Synced is a source that has delivered what there was.
func (c *crier) Synced(s kube.Source) {
	c.heard(string(s))
	if c.keeper != nil {
		c.keeper.Synced(s)
	}
}

func (c *crier) setNode(o any) {
	n := o.(*v1alpha1.NodeNetwork)
	c.post(func() { c.board.SetNode(n) })
	if c.keeper != nil {
		c.keeper.SetNode(n)
	}
}

func (c *crier) dropNode(o any) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return
	}
	c.post(func() { c.board.DropNode(key) })
	if c.keeper != nil {
		c.keeper.DropNode(key)
	}
}

// doorFound takes what is malformed in an object.
func (c *crier) doorFound(k intent.Key, list []rows.Problem) {
	found := fold.OfProblems(list)
	c.post(func() { c.board.Set("door/"+k.String(), found) })
}

// run follows all sources and says what changes until ctx ends.
func (c *crier) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	c.driver.Sink().Put(c.plan)
	wg.Go(func() { _ = c.driver.Run(ctx) }) // these three end with ctx alone
	watch := &kube.Watch{Client: c.client, Sink: c, Problems: c.doorFound, Taps: c.taps}
	if c.keeper != nil {
		watch.Dynamic = c.keeper.Client
		watch.Sources = []kube.Source{kube.Nodes, kube.Namespaces, kube.Pods, kube.Networks, kube.PhysicalNetworks, kube.DevicePools}
	}
	if c.plan.GlobalZone {
		watch.Zoning = kube.ZoneGlobal
	}
	wg.Go(func() { _ = watch.Run(ctx) })
	_, informer := kube.NewNodeNetworkInformer(c.networks, "", cache.ResourceEventHandlerFuncs{
		AddFunc: c.setNode, UpdateFunc: func(_, o any) { c.setNode(o) }, DeleteFunc: c.dropNode,
	})
	wg.Go(func() { informer.RunWithContext(ctx) })
	wg.Go(func() {
		select {
		case <-informer.HasSyncedChecker().Done():
			c.heard(fromNodeNetworks)
			if c.keeper != nil {
				c.keeper.NodesHeard()
			}
		case <-ctx.Done():
		}
	})
	if c.listen(ctx) {
		c.speak(ctx)
	}
}

// listen waits until all sources have been heard, and what was said before is known.
func (c *crier) listen(ctx context.Context) bool {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		c.mu.Lock()
		missing := slices.Sorted(maps.Keys(c.missing))
		c.mu.Unlock()
		if len(missing) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return false
		case <-c.bell:
			continue
		case <-late.C:
			c.log.Warn("problems are told without what these say, which have not answered", "sources", missing)
		}
		break
	}
	c.driver.Sink().Synced()
	for {
		err := c.teller.Learn(ctx)
		if err == nil {
			return true
		}
		c.log.Warn("Events of an earlier leader not known, will retry", "err", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(tryAgain):
		}
	}
}

// speak says what changes. What cannot be said is tried again.
func (c *crier) speak(ctx context.Context) {
	todo := map[intent.Key]fold.Statement{}
	first := true
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for ctx.Err() == nil {
		uids, err := c.update(ctx)
		if err != nil {
			return
		}
		for _, s := range c.board.Take() {
			todo[s.Object] = s
			c.log.Info("problem", "object", s.Object.String(), "reason", s.Reason, "message", s.Message)
		}
		for _, s := range c.board.Statements() {
			about, ok := targetOf(s.Object, uids)
			if had, said := c.stated[s.Object]; ok && said && had != about {
				todo[s.Object] = s // another pod has taken the name, with what was wrong
			}
		}
		if first {
			c.unsay(uids)
			first = false
		}
		c.sayAll(ctx, todo, uids)
		c.told(len(c.board.Statements()), c.teller.Writes())
		var retry <-chan time.Time
		if len(todo) > 0 {
			retry = time.After(tryAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.bell:
			select {
			case <-time.After(gather):
			case <-ctx.Done():
			}
		case <-retry:
		case <-again.C:
			for _, s := range c.board.Statements() {
				todo[s.Object] = s
			}
		}
	}
}

// update brings the board up to date and returns the pods' UIDs.
func (c *crier) update(ctx context.Context) (map[intent.Key]string, error) {
	c.mu.Lock()
	posted := c.posted
	c.posted = nil
	c.mu.Unlock()
	for _, fn := range posted {
		fn()
	}
	uids := map[intent.Key]string{}
	maps.Copy(uids, c.definitions)
	maps.Copy(uids, c.pools)
	err := c.driver.Do(ctx, func() {
		c.board.Set("units", fold.OfProblems(c.engine.Problems()))
		for _, key := range c.board.Objects() {
			if p, ok := c.engine.Object(key); ok && key.Kind == intent.KindPod {
				uids[key] = p.(*intent.Pod).UID
			}
		}
	})
	return uids, err
}

// unsay forgets what an earlier leader has said and what does not hold any more.
func (c *crier) unsay(uids map[intent.Key]string) {
	stands := map[kube.Target]struct{}{}
	for _, s := range c.board.Statements() {
		if about, ok := targetOf(s.Object, uids); ok {
			stands[about] = struct{}{}
		}
	}
	for _, about := range c.teller.Said() {
		if _, ok := stands[about]; !ok {
			c.teller.Unsay(about)
		}
	}
}

// sayAll says what is to be said, and leaves in todo what could not be.
func (c *crier) sayAll(ctx context.Context, todo map[intent.Key]fold.Statement, uids map[intent.Key]string) {
	ctx, cancel := context.WithTimeout(ctx, tryAgain)
	defer cancel()
	for _, key := range slices.SortedFunc(maps.Keys(todo), intent.Key.Compare) {
		s := todo[key]
		about, ok := targetOf(key, uids)
		if had, said := c.stated[key]; said && (s.Message == "" || had != about) {
			c.teller.Unsay(had)
			delete(c.stated, key)
		}
		if ok && s.Message != "" {
			if err := c.teller.Say(ctx, about, s.Reason, s.Message); err != nil {
				c.log.Warn("not told, will retry", "err", err)
				continue
			}
			c.stated[key] = about
		}
		delete(todo, key)
	}
}

// targetOf is the object that Events about a key are of.
func targetOf(k intent.Key, uids map[intent.Key]string) (kube.Target, bool) {
	if k.Kind == intent.KindNode {
		return kube.NodeTarget(k.Name), true
	}
	uid := uids[k]
	if k.Kind == intent.KindDevicePool {
		return kube.PoolTarget(k.Name, uid), uid != ""
	}
	namespace, name, ok := strings.Cut(k.Name, "/")
	if k.Kind == intent.KindDefinition {
		return kube.DefinitionTarget(namespace, name, uid), ok && uid != ""
	}
	return kube.PodTarget(namespace, name, uid), ok && uid != ""
}
