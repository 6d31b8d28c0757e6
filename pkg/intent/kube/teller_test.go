package kube

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// spoken is a teller with its API server.
type spoken struct {
	t      *testing.T
	client *fake.Clientset
	now    time.Time
	*Teller
}

func newSpoken(t *testing.T) *spoken {
	s := &spoken{t: t, client: fake.NewClientset(), now: time.Unix(1e9, 0)}
	s.restart()
	return s
}

// restart is another process that takes over.
func (s *spoken) restart() {
	s.t.Helper()
	s.Teller = NewTeller(s.client, "portolan-manager")
	s.Teller.now = func() time.Time { return s.now }
	if err := s.Learn(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *spoken) say(about Target, reason, message string) {
	s.t.Helper()
	if err := s.Say(s.t.Context(), about, reason, message); err != nil {
		s.t.Fatal(err)
	}
}

// expect checks how much has been written since the last restart, and what Events there are.
func (s *spoken) expect(what string, writes uint64, events int) []corev1.Event {
	s.t.Helper()
	list, err := s.client.CoreV1().Events("").List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	if s.Writes() != writes || len(list.Items) != events {
		s.t.Errorf("%s: %d writes and %d events, want %d and %d", what, s.Writes(), len(list.Items), writes, events)
	}
	return list.Items
}

func TestWhatIsSaidIsSaidOnceAndOverRestarts(t *testing.T) {
	s := newSpoken(t)
	pod, node := PodTarget("a", "p", "pod-uid"), NodeTarget("n")
	for range 3 {
		s.say(pod, "NetworkInputInvalid", "bad")
		s.say(node, "NetworkNotReady", "NIC")
	}
	events := s.expect("first", 2, 2)
	for _, e := range events {
		if e.InvolvedObject.Kind == "Pod" && (e.Namespace != "a" || e.InvolvedObject.UID != "pod-uid") ||
			e.InvolvedObject.Kind == "Node" && (e.Namespace != "default" || e.InvolvedObject.UID != "n") {
			t.Errorf("%+v", e)
		}
	}
	s.restart()
	s.say(pod, "NetworkInputInvalid", "bad")
	s.say(node, "NetworkNotReady", "NIC")
	s.expect("after a restart", 0, 2)
	s.now = s.now.Add(time.Second)
	s.say(pod, "NetworkInputInvalid", "worse")
	s.expect("after a change", 1, 3)
	if err := s.Happened(t.Context(), node, "NodeAnnotationRestored", "was x"); err != nil {
		t.Fatal(err)
	}
	s.say(node, "NetworkNotReady", "NIC")
	s.expect("something has happened besides", 2, 4)
	s.restart()
	s.say(pod, "NetworkInputInvalid", "worse")
	s.say(node, "NetworkNotReady", "NIC")
	s.expect("after a change and a restart", 0, 4)
	if len(s.Said()) != 2 {
		t.Errorf("said of %v", s.Said())
	}
}

func TestWhatLastsIsSaidAgainBeforeItIsForgotten(t *testing.T) {
	s := newSpoken(t)
	node := NodeTarget("n")
	s.say(node, "R", "m")
	s.now = s.now.Add(retell - time.Second)
	s.say(node, "R", "m")
	s.expect("young", 1, 1)
	s.now = s.now.Add(time.Second)
	s.say(node, "R", "m")
	e := s.expect("old", 2, 1)[0]
	if e.Count != 2 || !e.LastTimestamp.Time.Equal(s.now) || !e.FirstTimestamp.Time.Equal(time.Unix(1e9, 0)) {
		t.Errorf("%+v", e)
	}
	if err := s.client.CoreV1().Events("default").Delete(t.Context(), e.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.now = s.now.Add(retell)
	s.say(node, "R", "m")
	s.expect("forgotten by the server", 3, 1)
}

func TestTheSameAgainCounts(t *testing.T) {
	s := newSpoken(t)
	node := NodeTarget("n")
	s.say(node, "R", "m")
	s.Unsay(node)
	s.now = s.now.Add(time.Minute)
	s.say(node, "R", "m")
	if err := s.Happened(t.Context(), node, "R", "m"); err != nil {
		t.Fatal(err)
	}
	if e := s.expect("three times", 3, 1)[0]; e.Count != 3 || !strings.HasPrefix(e.Name, "n.") {
		t.Errorf("%+v", e)
	}
}

// TestEventsOfPools: an Event names the pool as what it is, and who comes after knows it
// from a node of its name.
func TestEventsOfPools(t *testing.T) {
	s := newSpoken(t)
	pool := PoolTarget("fast", "u1")
	s.say(pool, "DevicePoolFailed", "node n1: no room")
	events := s.expect("a pool", 1, 1)
	if o := events[0].InvolvedObject; o.Kind != "DevicePool" || o.APIVersion != "portolan.io/v1alpha1" || o.UID != "u1" || events[0].Namespace != metav1.NamespaceDefault {
		t.Errorf("an Event of %+v in %s", o, events[0].Namespace)
	}
	s.restart()
	s.say(pool, "DevicePoolFailed", "node n1: no room")
	s.say(NodeTarget("fast"), "DevicePoolFailed", "node n1: no room")
	s.expect("the same, and a node of the name", 1, 2)
}
