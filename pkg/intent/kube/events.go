package kube

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Recorder writes Events. Equal ones are counted, not repeated, and a source that
// floods is cut short; writing never blocks the caller.
type Recorder struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

// NewRecorder makes a recorder for a component; node is the node it runs on, or "".
func NewRecorder(ctx context.Context, client Client, component, node string) *Recorder {
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &Recorder{b, b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component, Host: node})}
}

// Close stops writing; what is queued may be lost.
func (r *Recorder) Close() { r.broadcaster.Shutdown() }

// Warning says that something the user asked for is not done. reason is one
// word in camel case.
func (r *Recorder) Warning(t Target, reason, message string) {
	r.recorder.Event(t.reference(), corev1.EventTypeWarning, reason, message)
}

// Normal says that something was done.
func (r *Recorder) Normal(t Target, reason, message string) {
	r.recorder.Event(t.reference(), corev1.EventTypeNormal, reason, message)
}

// reference is the object an Event is about. Events of nodes are in the namespace
// default, and kubectl describe finds them by the node's name as UID.
func (t Target) reference() *corev1.ObjectReference {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: t.Namespace, Name: t.Name, UID: types.UID(t.UID)}
	if t.Namespace == "" {
		ref.Kind = "Node"
		if ref.UID == "" {
			ref.UID = types.UID(t.Name)
		}
	}
	return ref
}
