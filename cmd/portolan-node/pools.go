package main

import (
	"context"
	"maps"

	"github.com/portolan-cni/portolan/cmd/portolan-node/door"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// pools keeps this node's device pools. Its methods may be called from anywhere, and do
// not block.
type pools interface {
	// Know takes a pool that came or changed, whether it selects this node or not, also
	// one that is Invalid.
	Know(*intent.DevicePool)
	// Forget takes that a pool is gone.
	Forget(name string)
	// Label takes the labels of this node's Node, when they come and when they change. What
	// they were holds while there is no Node.
	Label(map[string]string)
	// Namespace takes the labels of a namespace; nil: it is gone.
	Namespace(name string, labels map[string]string)
	// Listed says once that every pool there is, and the labels, have been delivered. What
	// an earlier run has made must not be undone before, because its pool is listed late.
	Listed()
	// States lists the pools that select this node, as observed, by name.
	States() []v1alpha1.NodeDevicePool
	// Problems lists what is wrong with them.
	Problems() []rows.Problem
}

// poolSink tells who keeps device pools what passes.
type poolSink struct {
	door.Driver
	pools  pools
	key    intent.Key        // of this node
	labels map[string]string // as last told; nil: never
}

// Put takes an object.
func (s *poolSink) Put(o intent.Object) {
	s.Driver.Put(o)
	if s.pools == nil {
		return
	}
	switch o := o.(type) {
	case *intent.Node:
		if o.Key() == s.key && (s.labels == nil || !maps.Equal(s.labels, o.Labels)) {
			s.labels = maps.Clone(nonNil(o.Labels))
			s.pools.Label(s.labels)
		}
	case *intent.DevicePool:
		s.pools.Know(o)
	case *intent.Namespace:
		s.pools.Namespace(o.Name, nonNil(o.Labels))
	}
}

// Delete takes an object's end.
func (s *poolSink) Delete(k intent.Key) {
	s.Driver.Delete(k)
	switch {
	case s.pools == nil:
	case k.Kind == intent.KindDevicePool:
		s.pools.Forget(k.Name)
	case k.Kind == intent.KindNamespace:
		s.pools.Namespace(k.Name, nil)
	}
}

// nonNil are labels that are there, if none.
func nonNil(labels map[string]string) map[string]string {
	if labels == nil {
		return map[string]string{}
	}
	return labels
}

// listPools tells when every pool has been delivered, which nothing else waits for.
func (a *agent) listPools(ctx context.Context) error {
	_, err := a.door.Wait(ctx, func(self *intent.Node, synced map[kube.Source]bool) bool {
		return self != nil && (synced[kube.Directory] || synced[kube.DevicePools])
	})
	if err == nil && a.pools != nil {
		a.pools.Listed()
	}
	return err
}

func (a *agent) poolStates() []v1alpha1.NodeDevicePool {
	if a.pools == nil {
		return nil
	}
	return a.pools.States()
}

func (a *agent) poolProblems() []rows.Problem {
	if a.pools == nil {
		return nil
	}
	return a.pools.Problems()
}
