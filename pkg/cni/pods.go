package cni

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Pod is what is known of a pod that is bound to this node.
type Pod struct {
	Namespace string
	Name      string
	UID       string
	// Mirror is the annotation kubernetes.io/config.mirror of a static pod's mirror:
	// the kubelet's hash, which the runtime passes as K8S_POD_UID. "" for others.
	Mirror string
	// Selection is the annotation k8s.v1.cni.cncf.io/networks as it stands.
	Selection string
	// Instead is the annotation v1.multus-cni.io/default-network as it stands.
	Instead string
}

// String is namespace/name.
func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Matches reports whether a K8S_POD_UID means this pod; an empty one means any.
func (p Pod) Matches(uid string) bool {
	return uid == "" || uid == p.UID || p.Mirror != "" && uid == p.Mirror
}

// Pods finds pods. PodStore implements it.
type Pods interface {
	// Wait returns the pod of that name once it is known under that UID (decision
	// 28). Its error says what is known instead, and wraps the context's cause.
	Wait(ctx context.Context, namespace, name, uid string) (Pod, error)
	// During is a context that ends when the pod is known no more: at once when it is not
	// known now. Its cause says so. cancel frees what it holds.
	During(ctx context.Context, p Pod) (during context.Context, cancel context.CancelFunc)
	// List returns all that are known.
	List() []Pod
}

// goneError ends what is under way for a pod.
type goneError struct{ pod Pod }

// Error says that the pod is gone.
func (e *goneError) Error() string {
	return fmt.Sprintf("pod %s (UID %s) is gone: it was deleted, or has ended", e.pod, e.pod.UID)
}

// PodStore holds the pods of this node as the informer delivers them.
type PodStore struct {
	mu      sync.Mutex // guards the rest
	pods    map[string]Pod
	waiting map[string]chan struct{}                     // by namespace/name; closed by the next Set
	during  map[string]map[*context.CancelCauseFunc]bool // by UID: what ends with the pod
}

// NewPodStore makes an empty store.
func NewPodStore() *PodStore {
	return &PodStore{
		pods: make(map[string]Pod), waiting: make(map[string]chan struct{}), during: make(map[string]map[*context.CancelCauseFunc]bool),
	}
}

// Set adds or replaces a pod.
func (s *PodStore) Set(p Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.pods[p.String()]; ok && old.UID != p.UID {
		s.end(old)
	}
	s.pods[p.String()] = p
	if bell, ok := s.waiting[p.String()]; ok {
		close(bell)
		delete(s.waiting, p.String())
	}
}

// Delete removes a pod; it does nothing when the name now belongs to another UID.
func (s *PodStore) Delete(namespace, name, uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := namespace + "/" + name
	if p, ok := s.pods[key]; ok && p.UID == uid {
		delete(s.pods, key)
		s.end(p)
	}
}

// end ends what is under way for a pod; s.mu is held.
func (s *PodStore) end(p Pod) {
	for cancel := range s.during[p.UID] {
		(*cancel)(&goneError{p})
	}
	delete(s.during, p.UID)
}

// During implements Pods.
func (s *PodStore) During(ctx context.Context, p Pod) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[p.String()].UID != p.UID {
		cancel(&goneError{p})
		return ctx, func() {}
	}
	if s.during[p.UID] == nil {
		s.during[p.UID] = make(map[*context.CancelCauseFunc]bool)
	}
	s.during[p.UID][&cancel] = true
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.during[p.UID], &cancel); len(s.during[p.UID]) == 0 {
			delete(s.during, p.UID)
		}
	}
}

// Has reports whether a pod, "namespace/name", is known under that UID.
func (s *PodStore) Has(pod, uid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uid != "" && s.pods[pod].UID == uid
}

// List returns the pods by namespace and name, so that what is done for each is done
// in one order whenever it is done.
func (s *PodStore) List() []Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Pod, 0, len(s.pods))
	for _, p := range s.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Pod) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// Wait implements Pods.
func (s *PodStore) Wait(ctx context.Context, namespace, name, uid string) (Pod, error) {
	key := namespace + "/" + name
	for {
		s.mu.Lock()
		p, ok := s.pods[key]
		if ok && p.Matches(uid) {
			s.mu.Unlock()
			return p, nil
		}
		bell := s.waiting[key]
		if bell == nil {
			bell = make(chan struct{})
			s.waiting[key] = bell
		}
		s.mu.Unlock()
		select {
		case <-bell:
		case <-ctx.Done():
			if ok {
				return Pod{}, fmt.Errorf("the runtime asks for UID %s, the API server's watch knows UID %s: %w", uid, p.UID, context.Cause(ctx))
			}
			return Pod{}, fmt.Errorf("the API server's watch has not delivered it: %w", context.Cause(ctx))
		}
	}
}
