package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// clock is a clock that stands still until it is set.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// testNode is a node of an age, in hours, with an id and a subnet in annotations; "" is none.
func testNode(name string, age int, id, subnets string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: "u", ResourceVersion: "1", Annotations: map[string]string{},
		CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-time.Duration(age) * time.Hour)),
	}}
	if id != "" {
		n.Annotations[kube.AnnotationNodeID] = id
	}
	if subnets != "" {
		n.Annotations[kube.AnnotationNodeSubnets] = subnets
	}
	return n
}

func subnet(s string) string { return fmt.Sprintf(`{"default":["%s"]}`, s) }

// started is a running loop and what it has said.
type started struct {
	t      *testing.T
	client *fake.Clientset
	done   chan string

	mu     sync.Mutex // guards events
	events []string
}

// deaf is a Sink for who listens by a tap alone.
type deaf struct{}

func (deaf) Put(intent.Object)  {}
func (deaf) Delete(intent.Key)  {}
func (deaf) Synced(kube.Source) {}

// start runs a loop, and the watch that it hears, until the test ends.
func start(t *testing.T, client *fake.Clientset, clusterSubnets ...string) (*started, context.CancelFunc) {
	t.Helper()
	a, err := assign.New(clusterSubnets, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := &started{t: t, client: client, done: make(chan string, 10000)}
	l := newLoop(client, a, slog.New(slog.DiscardHandler))
	l.done = func(result string) { s.done <- result }
	l.found = func(node string, list []assign.Finding) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range list {
			s.events = append(s.events, node+" "+f.Reason)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	watch := &kube.Watch{Client: client, Sink: deaf{}, Sources: []kube.Source{kube.Nodes}, Taps: map[kube.Source]kube.Tap{kube.Nodes: l.tap()}}
	parts.Go(func() { _ = watch.Run(ctx) })
	parts.Go(func() { _ = l.run(ctx) })
	stop := func() { cancel(); parts.Wait() }
	t.Cleanup(stop)
	return s, stop
}

// wait waits until ok holds, looking again after each node that was dealt with.
func (s *started) wait(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-s.done:
		case <-deadline:
			s.t.Fatalf("never came: %s; events %v", what, s.events)
		}
	}
}

func (s *started) has(node, id, subnets string) func() bool {
	return func() bool {
		n, err := s.client.CoreV1().Nodes().Get(context.Background(), node, metav1.GetOptions{})
		return err == nil && n.Annotations[kube.AnnotationNodeID] == id && n.Annotations[kube.AnnotationNodeSubnets] == subnets
	}
}

func (s *started) said(event string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.events {
			if e == event {
				return true
			}
		}
		return false
	}
}

func patchCount(client *fake.Clientset) (n int) {
	for _, a := range client.Actions() {
		if a.GetVerb() == "patch" {
			n++
		}
	}
	return n
}

func TestLoopIsStableOverRestarts(t *testing.T) {
	client := fake.NewClientset(testNode("young", 1, "", ""), testNode("old", 9, "", ""))
	s, stop := start(t, client, "10.244.0.0/16/24")
	s.wait("the older node first", s.has("old", "2", subnet("10.244.0.0/24")))
	s.wait("the younger node", s.has("young", "3", subnet("10.244.1.0/24")))
	for _, a := range client.Actions() {
		if p, ok := a.(ktesting.PatchAction); ok && !strings.Contains(string(p.GetPatch()), `"resourceVersion":"1"`) {
			t.Errorf("patch without precondition: %s", p.GetPatch())
		}
	}
	stop()
	before := patchCount(client)
	if before != 2 {
		t.Errorf("%d patches for two nodes", before)
	}
	s, _ = start(t, client, "10.244.0.0/16/24")
	if _, err := client.CoreV1().Nodes().Create(context.Background(), testNode("new", 0, "", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wait("a new node after the restart", s.has("new", "4", subnet("10.244.2.0/24")))
	if got := patchCount(client) - before; got != 1 {
		t.Errorf("%d patches after a restart, want the new node's", got)
	}
}

func TestLoopReportsExhaustionAndGoesOn(t *testing.T) {
	client := fake.NewClientset(testNode("a", 3, "", ""), testNode("b", 2, "", ""), testNode("c", 1, "", ""))
	s, _ := start(t, client, "10.244.0.0/23/24")
	s.wait("an Event", s.said("c NodeSubnetsExhausted"))
	s.wait("the others", func() bool {
		return s.has("a", "2", subnet("10.244.0.0/24"))() && s.has("b", "3", subnet("10.244.1.0/24"))() && s.has("c", "4", "")()
	})
}

func TestFindingsAreToldOnceInAWhile(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	var told []string
	found := 0
	l := newLoop(fake.NewClientset(), nil, slog.New(slog.DiscardHandler))
	l.now = c.now
	l.found = func(string, []assign.Finding) { found++ }
	l.event = func(_ string, f assign.Finding) { told = append(told, f.Message) }
	restored := func(message string) {
		l.tell("n", []assign.Finding{{Reason: assign.ReasonRestored, Message: message}, {Reason: assign.ReasonNoSubnet, Message: "x"}})
	}
	restored("1")
	l.tell("n", nil) // it is as it should be
	restored("1")    // somebody fights for it
	restored("2")
	c.t = c.t.Add(tellAgain)
	restored("1")
	if got := strings.Join(told, ""); got != "121" || found != 5 {
		t.Errorf("told %s, handed on %d times", got, found)
	}
	c.t = c.t.Add(tellAgain)
	if l.tell("n", nil); len(l.said) != 0 {
		t.Errorf("remembers %v", l.said)
	}
}

func TestLoopRetriesConflictsAndFailures(t *testing.T) {
	client := fake.NewClientset(testNode("a", 3, "", ""))
	var mu sync.Mutex
	answers := []error{
		apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, "a", errors.New("the object has been modified")),
		errors.New("server is away"),
	}
	client.PrependReactor("patch", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers) == 0 {
			return false, nil, nil
		}
		err := answers[0]
		answers = answers[1:]
		return true, nil, err
	})
	s, _ := start(t, client, "10.244.0.0/16/24")
	s.wait("the node after retries", s.has("a", "2", subnet("10.244.0.0/24")))
}

func TestDeletionHelpsTheTroubled(t *testing.T) {
	client := fake.NewClientset(testNode("old", 3, "2", subnet("10.244.0.0/24")), testNode("young", 1, "2", subnet("10.244.1.0/24")))
	s, _ := start(t, client, "10.244.0.0/16/24")
	s.wait("a conflict", s.said("young NodeIDConflict"))
	if err := client.CoreV1().Nodes().Delete(context.Background(), "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.events = nil
	s.mu.Unlock()
	if _, err := client.CoreV1().Nodes().Create(context.Background(), testNode("third", 0, "", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wait("the id to stay the younger node's", func() bool {
		return s.has("third", "3", subnet("10.244.2.0/24"))() && s.has("young", "2", subnet("10.244.1.0/24"))()
	})
}

func TestElection(t *testing.T) {
	client := fake.NewClientset(testNode("a", 1, "", ""))
	m := newMetrics()
	ctx, cancel := context.WithCancel(context.Background())
	cfg := Config{ClusterSubnets: []string{"10.244.0.0/16/24"}, Namespace: "portolan", Identity: "me"}
	ended := make(chan error, 1)
	written := make(chan struct{}, 8)
	client.PrependReactor("patch", "nodes", func(ktesting.Action) (bool, runtime.Object, error) {
		written <- struct{}{}
		return false, nil, nil
	})
	go func() {
		ended <- elect(ctx, election{
			cfg: cfg, client: client, networks: kube.NewNodeNetworks(newNetworks()), objects: newNetworks(), log: slog.New(slog.DiscardHandler), metrics: m,
		})
	}()
	<-written
	web := httptest.NewServer(m.handler())
	defer web.Close()
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "portolan_manager_leader 1"} {
		if code, body := get(t, web.URL+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	e := election{cfg: cfg, client: client, log: slog.New(slog.DiscardHandler)}
	left := assign.Record{ID: 9, Subnets: []uint64{4}, Rests: []assign.Rest{{Node: "x", ID: 7, Since: time.Unix(1e9, 0).UTC()}}}
	if err := e.keep(ctx, left); err != nil {
		t.Fatal(err)
	}
	if got := e.recall(ctx); !reflect.DeepEqual(got, left) {
		t.Errorf("the Lease says %+v", got)
	}
	other := e
	other.cfg.Identity = "somebody else"
	if err := other.keep(ctx, left); err == nil || !strings.Contains(err.Error(), "not held by somebody else") {
		t.Errorf("who does not lead may write the Lease: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	lease, err := client.CoordinationV1().Leases("portolan").Get(context.Background(), leaseName, metav1.GetOptions{})
	if err != nil || lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" {
		t.Errorf("the Lease was not given back: %+v, %v", lease, err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestMetricsSayWhatIsExhausted(t *testing.T) {
	a, err := assign.New([]string{"10.244.0.0/24/24"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*corev1.Node{testNode("a", 2, "", ""), testNode("b", 1, "", "")} {
		a.Assign(n)
	}
	m := newMetrics()
	m.show(a)
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{"portolan_manager_nodes 2\n", "portolan_manager_node_subnets_exhausted 1\n", "portolan_manager_node_ids_exhausted 0\n"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
	w = httptest.NewRecorder()
	if m.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("ready before an election: %d", w.Code)
	}
}

func TestConfig(t *testing.T) {
	c := defaultConfig()
	c.Identity = "me"
	if err := c.load("testdata/cluster.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil || c.Client.APIServer != "https://172.18.0.3:6443" {
		t.Errorf("%+v, %v", c, err)
	}
	c.ClusterSubnets = []string{"10.0.0.0/8/4"}
	if err := c.Validate(); err == nil {
		t.Error("a node's subnet larger than the cluster's passes")
	}
	flags := Config{ClusterSubnets: []string{"10.1.0.0/16/24"}, Client: kube.ClientConfig{APIServer: "https://10.0.0.1"}}
	if err := flags.load("testdata/cluster.yaml"); err != nil || flags.ClusterSubnets[0] != "10.1.0.0/16/24" || flags.Client.APIServer != "https://10.0.0.1" {
		t.Errorf("flags do not override the file: %+v, %v", flags, err)
	}
}

// TestRestartWithThousandsOfNodesWritesNothing gives 2,000 nodes what they need,
// and starts another leader.
func TestRestartWithThousandsOfNodesWritesNothing(t *testing.T) {
	const n = 2000
	var nodes []runtime.Object
	a, err := assign.New([]string{"10.128.0.0/9/24"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		node := testNode(fmt.Sprintf("n%04d", i), n-i, "", "")
		node.Annotations = a.Assign(node).Annotations // as an earlier leader wrote them
		nodes = append(nodes, node)
	}
	client := fake.NewClientset(nodes...)
	s, _ := start(t, client, "10.128.0.0/9/24")
	for range n { // every node is looked at once
		s.step(t)
	}
	if got := patchCount(client); got != 0 {
		t.Errorf("%d patches after a restart with %d nodes", got, n)
	}
	if _, err := client.CoreV1().Nodes().Create(context.Background(), testNode("new", 0, "", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.wait("a new node", s.has("new", strconv.Itoa(n+2), subnet("10.135.208.0/24")))
}

// step waits until one node more has been dealt with.
func (s *started) step(t *testing.T) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing more is dealt with")
	}
}
