package kube

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// Teller says what is wrong with objects, in one Event for each: once when it
// changes, and again before the API server forgets it, while it lasts. What it said
// stands in the Events themselves, so that one who comes after it says nothing
// again. It is used by one goroutine.
type Teller struct {
	client    Client
	component string
	now       func() time.Time
	said      map[Target]map[string]told // by reason
	writes    uint64
}

// told is the Event that stands for an object.
type told struct {
	name, reason, message string
	at                    time.Time
	count                 int32
}

// retell is how old an Event may grow whose cause lasts: the API server keeps
// Events for an hour by default.
const retell = 45 * time.Minute

// eventPage is how many Events are listed at once.
const eventPage = 500

// NewTeller makes a teller that speaks for a component.
func NewTeller(client Client, component string) *Teller {
	return &Teller{client: client, component: component, now: time.Now, said: map[Target]map[string]told{}}
}

// Writes counts the requests that have changed something.
func (t *Teller) Writes() uint64 { return t.writes }

// Learn reads what was said by who had this part before.
func (t *Teller) Learn(ctx context.Context) error {
	o := metav1.ListOptions{Limit: eventPage, FieldSelector: fields.OneTermEqualSelector("reportingComponent", t.component).String()}
	for {
		list, err := t.client.CoreV1().Events(metav1.NamespaceAll).List(ctx, o)
		if err != nil {
			return fmt.Errorf("list events: %w", err)
		}
		for i := range list.Items {
			t.learn(&list.Items[i])
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return nil
		}
	}
}

func (t *Teller) learn(e *corev1.Event) {
	if e.ReportingController != t.component || e.Type != corev1.EventTypeWarning {
		return
	}
	about := Target{Namespace: e.InvolvedObject.Namespace, Name: e.InvolvedObject.Name, UID: string(e.InvolvedObject.UID)}
	if about.Namespace == "" && about.UID == about.Name {
		about.UID = "" // as reference makes it
	}
	if kind := e.InvolvedObject.Kind; kind == kindDefinition || kind == v1alpha1.KindDevicePool {
		about.Kind = kind
	}
	if old, ok := t.said[about][e.Reason]; !ok || old.at.Before(e.LastTimestamp.Time) {
		t.note(about, told{name: e.Name, reason: e.Reason, message: e.Message, at: e.LastTimestamp.Time, count: e.Count})
	}
}

func (t *Teller) note(about Target, e told) {
	if t.said[about] == nil {
		t.said[about] = map[string]told{}
	}
	t.said[about][e.reason] = e
}

// Said lists the objects that something is said of.
func (t *Teller) Said() []Target { return slices.Collect(maps.Keys(t.said)) }

// Say says what is wrong with an object, unless that stands already.
func (t *Teller) Say(ctx context.Context, about Target, reason, message string) error {
	old, ok := t.said[about][reason]
	if ok = ok && old.message == message; ok && t.now().Sub(old.at) < retell {
		return nil
	}
	var err error
	if ok {
		old, err = t.again(ctx, about, old)
	} else {
		old, err = t.create(ctx, about, reason, message)
	}
	if err != nil {
		return fmt.Errorf("event of %s: %w", about, err)
	}
	delete(t.said, about) // another reason holds no more
	t.note(about, old)
	return nil
}

// Happened says that something happened to an object: each time anew.
func (t *Teller) Happened(ctx context.Context, about Target, reason, message string) error {
	if _, err := t.create(ctx, about, reason, message); err != nil {
		return fmt.Errorf("event of %s: %w", about, err)
	}
	return nil
}

// create makes an Event, or counts one that says the same and is there yet.
func (t *Teller) create(ctx context.Context, about Target, reason, message string) (told, error) {
	e := t.event(about, reason, message)
	now := told{name: e.Name, reason: reason, message: message, at: e.LastTimestamp.Time, count: 1}
	events := t.client.CoreV1().Events(e.Namespace)
	_, err := events.Create(ctx, e, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		had, err := events.Get(ctx, e.Name, metav1.GetOptions{})
		if err != nil {
			return now, err
		}
		now.count = had.Count
		return t.again(ctx, about, now)
	}
	if err == nil {
		t.writes++
	}
	return now, err
}

// again renews an Event, or makes it anew where the server has forgotten it.
func (t *Teller) again(ctx context.Context, about Target, e told) (told, error) {
	e.at, e.count = t.now(), e.count+1
	body := fmt.Appendf(nil, `{"lastTimestamp":%q,"count":%d}`, e.at.UTC().Format(time.RFC3339), e.count)
	_, err := t.client.CoreV1().Events(t.namespace(about)).Patch(ctx, e.name, types.MergePatchType, body, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return t.create(ctx, about, e.reason, e.message)
	}
	if err == nil {
		t.writes++
	}
	return e, err
}

// Unsay notes that nothing is wrong with an object any more. The Event stays until
// the server forgets it: it is a record.
func (t *Teller) Unsay(about Target) { delete(t.said, about) }

func (t *Teller) namespace(about Target) string {
	if about.Namespace == "" {
		return metav1.NamespaceDefault // where Events of objects are that have no namespace
	}
	return about.Namespace
}

// event is named after what it says, so that two who say the same at one time make
// one Event.
func (t *Teller) event(about Target, reason, message string) *corev1.Event {
	ref := about.reference()
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s", ref.Kind, ref.UID, reason, message)
	now := metav1.NewTime(t.now())
	return &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: t.namespace(about), Name: fmt.Sprintf("%s.%016x", about.Name, h.Sum64())},
		InvolvedObject: *ref, Reason: reason, Message: message, Type: corev1.EventTypeWarning,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		Source: corev1.EventSource{Component: t.component}, ReportingController: t.component,
	}
}

// reference is the object an Event is about. Events of nodes are in the namespace
// default, and kubectl describe finds them by the node's name as UID.
func (t Target) reference() *corev1.ObjectReference {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: t.Namespace, Name: t.Name, UID: types.UID(t.UID)}
	if t.Kind == kindDefinition {
		ref.APIVersion, ref.Kind = "k8s.cni.cncf.io/v1", t.Kind
	}
	switch {
	case t.Kind == v1alpha1.KindDevicePool:
		ref.APIVersion, ref.Kind = v1alpha1.APIVersion, t.Kind
	case t.Namespace == "":
		ref.Kind = "Node"
		if ref.UID == "" {
			ref.UID = types.UID(t.Name)
		}
	}
	return ref
}
