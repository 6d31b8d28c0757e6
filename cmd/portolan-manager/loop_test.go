package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
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

	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// started is a running loop and what it has said.
type started struct {
	t      *testing.T
	client *fake.Clientset
	done   chan string

	mu     sync.Mutex // guards events
	events []string
}

// start runs a loop until the test ends.
func start(t *testing.T, client *fake.Clientset, clusterSubnets ...string) (*started, context.CancelFunc) {
	t.Helper()
	a, err := newAssigner(clusterSubnets, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := &started{t: t, client: client, done: make(chan string, 1000)}
	l := newLoop(client, a, slog.New(slog.DiscardHandler))
	l.done = func(result string) { s.done <- result }
	l.event = func(node string, f finding) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, node+" "+f.reason)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = l.run(ctx) }()
	stop := func() { cancel(); <-ended }
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
	l := newLoop(fake.NewClientset(), nil, slog.New(slog.DiscardHandler))
	l.now = c.now
	l.event = func(_ string, f finding) { told = append(told, f.message) }
	say := func(message string) { l.tell("n", []finding{{reasonNoSubnet, message}}) }
	say("1")
	say("2") // the same finding, worded by another time
	c.t = c.t.Add(tellAgain)
	say("3")
	l.tell("n", nil)
	say("4") // gone and back
	if got := strings.Join(told, ""); got != "134" {
		t.Errorf("told %s", got)
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
		ended <- elect(ctx, election{cfg: cfg, client: client, log: slog.New(slog.DiscardHandler), metrics: m})
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
	rests := []resting{{Node: "x", ID: 7, Since: time.Unix(1e9, 0).UTC()}}
	if err := e.keep(ctx, rests); err != nil {
		t.Fatal(err)
	}
	if got := e.recall(ctx); len(got) != 1 || got[0].ID != 7 || !got[0].Since.Equal(rests[0].Since) {
		t.Errorf("the Lease says %+v rests", got)
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
	a, _ := newTest(t, "10.244.0.0/24/24")
	for _, n := range []*corev1.Node{testNode("a", 2, "", ""), testNode("b", 1, "", "")} {
		a.assign(n)
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
