package restart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/cmd/portolan-node/door"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

const (
	nodeName  = "ovn-worker"
	namespace = "scale"
	podSubnet = "10.64.0.0/18" // room for 16,000 pods
)

// machine is what outlives the agent: databases, kernel, API server.
type machine struct {
	client  *fake.Clientset
	dynamic kube.Dynamic // of networks, of which there are none
	links   *cnitest.Links
	proxies map[rows.DB]*ovsdbtest.Proxy
}

func newMachine(t testing.TB, pods int) *machine {
	t.Helper()
	m := &machine{links: &cnitest.Links{}, proxies: map[rows.DB]*ovsdbtest.Proxy{}}
	for db, schema := range map[rows.DB]string{rows.NB: "ovn-nb", rows.SB: "ovn-sb"} {
		m.proxies[db] = ovsdbtest.StartProxy(t, ovsdbtest.StartServer(t, ovsdbtest.Schema(schema)).Endpoint)
	}
	m.proxies[rows.OVS] = ovsdbtest.StartProxy(t, ovsdbtest.StartOVS(t, false).Endpoint)
	objects := []runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, UID: "n", ResourceVersion: "1", Annotations: map[string]string{
			kube.AnnotationNodeID: "2", kube.AnnotationNodeSubnets: kube.FormatNodeSubnets(subnets()),
		}}},
	}
	for i := range pods {
		name := fmt.Sprintf("pod-%05d", i)
		objects = append(objects, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name), Labels: map[string]string{"app": "scale"}},
			Spec:       corev1.PodSpec{NodeName: nodeName},
		})
	}
	m.client = fake.NewClientset(objects...)
	m.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "networks"}:              "NetworkList",
		{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "addressblocks"}:         "AddressBlockList",
		{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "physicalnetworks"}:      "PhysicalNetworkList",
		{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}: "NetworkAttachmentDefinitionList",
	})
	m.client.PrependReactor("patch", "pods", m.annotate)
	return m
}

// annotate answers a merge patch of a pod's annotations, which client-go's fake
// takes 2 ms for: it makes a map of every known type first.
func (m *machine) annotate(a ktesting.Action) (bool, runtime.Object, error) {
	p := a.(ktesting.PatchAction)
	pods := corev1.SchemeGroupVersion.WithResource("pods")
	o, err := m.client.Tracker().Get(pods, p.GetNamespace(), p.GetName())
	if err != nil {
		return true, nil, err
	}
	pod := o.DeepCopyObject().(*corev1.Pod)
	if err := json.Unmarshal(p.GetPatch(), pod); err != nil {
		return true, nil, err
	}
	return true, pod, m.client.Tracker().Update(pods, pod, p.GetNamespace())
}

func subnets() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(podSubnet)} }

// agent is one life of portolan-node on a machine, wired as its main does.
type agent struct {
	stages  []stage
	engine  *engine.Engine
	driver  *ovsdb.Driver
	conns   []*ovsdb.Conn
	ports   *cni.OVSPorts
	door    *door.Door
	server  *cni.Agent
	patcher *kube.Patcher
	stop    context.CancelFunc
	running sync.WaitGroup
}

// stage is when a part of a start was done.
type stage struct {
	name string
	at   time.Time
}

func (a *agent) done(name string) { a.stages = append(a.stages, stage{name, time.Now()}) }

// start runs an agent until it is at rest: everything listed, what an earlier run
// left taken up, every pod added, and all that units want committed.
func start(ctx context.Context, m *machine) (*agent, error) {
	a := &agent{}
	a.done("begin")
	if err := a.connect(ctx, m); err != nil {
		return a, err
	}
	a.done("connected")
	ctx, a.stop = context.WithCancel(ctx)
	watch := &kube.Watch{Client: m.client, Dynamic: m.dynamic, Sink: a.door, Node: nodeName}
	for _, run := range []func(context.Context) error{a.driver.Run, watch.Run, a.patcher.Run} {
		a.running.Go(func() { _ = run(ctx) }) // each ends by ctx alone
	}
	a.declare()
	self, err := a.door.Wait(ctx, func(self *intent.Node, synced map[kube.Source]bool) bool {
		return self != nil && door.Complete(synced)
	})
	if err != nil {
		return a, err
	}
	a.done("listed")
	if err := a.recover(ctx, m, self); err != nil {
		return a, err
	}
	a.done("recovered")
	a.driver.Sink().Synced()
	a.door.Serve(a.server)
	if err := a.add(ctx); err != nil {
		return a, err
	}
	a.done("added")
	err = errors.Join(a.rest(ctx), a.patcher.Flush(ctx))
	a.done("at rest")
	return a, err
}

// add calls ADD for every pod, as the runtime does: on the first life it makes
// their ports, on the second it finds them.
func (a *agent) add(ctx context.Context) error {
	pods := a.door.Pods().List()
	const workers = 8
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(pods) && errs[w] == nil; i += workers {
				errs[w] = a.call(ctx, pods[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (a *agent) call(ctx context.Context, p cni.Pod) error {
	reply := a.server.Handle(ctx, &wire.Call{
		Command: wire.Add, ContainerID: "sandbox-" + p.Name, Netns: "/run/netns/" + p.Name, IfName: "eth0",
		Args:   fmt.Sprintf("K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Namespace, p.Name, p.UID),
		Config: []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`),
	})
	if reply.Error != nil {
		return reply.Error
	}
	return nil
}

// installed are the ports of a node whose ovn-controller has no delay.
type installed struct{ *cni.OVSPorts }

// WaitInstalled implements cni.Ports.
func (installed) WaitInstalled(context.Context, string) error { return nil }

func (a *agent) connect(ctx context.Context, m *machine) error {
	quiet := slog.New(slog.DiscardHandler)
	var dbs []ovsdb.Database
	for _, db := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		c, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db, Endpoint: m.proxies[db].Endpoint, Zone: nodeName, Lock: db != rows.OVS, Logger: quiet})
		if err != nil {
			return err
		}
		a.conns = append(a.conns, c)
		dbs = append(dbs, c)
	}
	var err error
	if a.ports, err = cni.DialPorts(ctx, m.proxies[rows.OVS].Endpoint, intent.IntegrationBridge); err != nil {
		return err
	}
	a.engine = engine.New(engine.Config{Kinds: compile.Kinds(), Databases: []rows.DB{rows.OVS, rows.NB, rows.SB}})
	a.driver = ovsdb.NewDriver(ovsdb.DriverConfig{Logger: quiet}, a.engine, dbs...)
	a.patcher = kube.NewPatcher(m.client, quiet)
	a.door = door.New(door.Config{Node: nodeName, Driver: a.driver.Sink(), Annotator: a.patcher, Own: own, Log: quiet})
	return nil
}

// own adds to the node what its agent knows.
func own(n *intent.Node) *intent.Node {
	o := *n
	o.Chassis, o.EncapIPs = "chassis-"+nodeName, []netip.Addr{netip.MustParseAddr("172.18.0.4")}
	o.Gateway = intent.Gateway{Bridge: "br-ex", Interface: "eth0", MAC: "02:00:ac:12:00:04",
		Addresses: []netip.Prefix{netip.MustParsePrefix("172.18.0.4/24")}, NextHops: []netip.Addr{netip.MustParseAddr("172.18.0.1")}}
	return &o
}

func (a *agent) declare() {
	sink := a.driver.Sink()
	sink.Put(&intent.Cluster{
		Zone: nodeName, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")}, MTU: 1400,
		JoinSubnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, TransitNets: []netip.Prefix{netip.MustParsePrefix("100.88.0.0/16")},
		Masquerade: []netip.Prefix{netip.MustParsePrefix("169.254.169.0/29")}, ServiceNets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	sink.Put(&intent.Host{Node: nodeName, Chassis: "chassis-" + nodeName, Datapath: intent.UserspaceDatapath, Bridge: "br-ex",
		BridgeMAC: "02:00:ac:12:00:04", NIC: "eth0", EncapIPs: []netip.Addr{netip.MustParseAddr("172.18.0.4")}, Remote: "unix:/run/ovn/ovnsb_db.sock"})
}

func (a *agent) recover(ctx context.Context, m *machine, self *intent.Node) error {
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: self.Subnets})
	if err != nil {
		return err
	}
	a.server, err = cni.New(cni.Config{
		Pods: a.door.Pods(), Ports: installed{a.ports}, Links: m.links, Publisher: a.door, Pool: pool, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	if err := a.bridge(ctx); err != nil {
		return err
	}
	pods, known := a.door.Known()
	return a.server.Recover(ctx, pods, known)
}

// bridge makes sure that there is an integration bridge for ports to be put into:
// in the first life the engine has not written it yet.
func (a *agent) bridge(ctx context.Context) error {
	ports, err := a.ports.List(ctx)
	if err != nil || len(ports) > 0 {
		return err
	}
	a.driver.Sink().Synced()
	return a.driver.Wait(ctx, "vswitch/"+nodeName, ovsdb.Committed)
}

// rest waits until every unit's group is committed.
func (a *agent) rest(ctx context.Context) error {
	for {
		var waiting []string
		var waits []engine.Status
		if err := a.driver.Do(ctx, func() {
			for _, u := range a.engine.Units() {
				if committed, _ := a.engine.Marks(u.String()); !committed {
					waiting = append(waiting, u.String())
				}
			}
			waits = a.engine.Statuses()
		}); err != nil {
			return err
		}
		if len(waits) > 0 {
			return fmt.Errorf("%d groups wait, the first: %s", len(waits), waits[0])
		}
		if len(waiting) == 0 {
			return nil
		}
		if err := a.driver.Wait(ctx, waiting[0], ovsdb.Committed); err != nil {
			return err
		}
	}
}

// end kills the agent: nothing of it is written or waited for.
func (a *agent) end() {
	if a.stop != nil {
		a.stop()
	}
	a.running.Wait()
	if a.ports != nil {
		a.ports.Close()
	}
	for _, c := range a.conns {
		c.Close()
	}
}

// patches counts the API server's writes since from; and where the log now ends.
func (m *machine) patches(from int) (n, until int) {
	actions := m.client.Actions()
	for _, a := range actions[from:] {
		if v := a.GetVerb(); !strings.HasPrefix(v, "list") && v != "watch" && v != "get" {
			n++
		}
	}
	return n, len(actions)
}
