package networks

import (
	"context"
	"fmt"

	ipamclaims "github.com/k8snetworkplumbingwg/ipamclaims/pkg/crd/ipamclaims/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// source is one resource that is followed. put and drop get what the server has.
type source struct {
	name string
	of   schema.GroupVersionResource
	put  func(*unstructured.Unstructured) error
	drop func(key string)
}

// Definitions names the resource of NetworkAttachmentDefinitions.
func Definitions() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"}
}

// sources are followed by the Keeper itself, for nobody else in the manager reads them.
func (k *Keeper) sources() []source {
	return append(k.userDefinedSources(), []source{
		{
			name: "definitions", of: Definitions(), put: k.putDefinition,
			drop: func(key string) { k.setDefinition(key, nil, nil) },
		},
		{
			name: "blocks", of: resource("addressblocks"),
			put: func(u *unstructured.Unstructured) error {
				b, err := decode[v1alpha1.AddressBlock](u)
				if err == nil {
					k.setBlock(b.Name, b)
				}
				return err
			},
			drop: func(key string) { k.setBlock(key, nil) },
		},
		{
			name: "ipamclaims", of: kube.ClaimResource(),
			put: func(u *unstructured.Unstructured) error {
				c, err := decode[ipamclaims.IPAMClaim](u)
				if err == nil {
					k.setClaim(keyOf(u), c)
				}
				return err
			},
			drop: func(key string) { k.setClaim(key, nil) },
		},
	}...)
}

// Taps are the Keeper's ears at the manager's watch: for what it and the watch's Sink
// both read.
func (k *Keeper) Taps() map[kube.Source]kube.Tap {
	return map[kube.Source]kube.Tap{
		kube.Networks: {
			Put:    func(o any) { k.setNetwork(o.(*v1alpha1.Network)) },
			Drop:   func(o any) { k.dropNetwork(o.(*v1alpha1.Network)) },
			Synced: func() { k.heard(string(kube.Networks)) },
		},
		kube.PhysicalNetworks: {
			Put:    func(o any) { k.setPhysical(o.(*v1alpha1.PhysicalNetwork).Name, o.(*v1alpha1.PhysicalNetwork)) },
			Drop:   func(o any) { k.setPhysical(o.(*v1alpha1.PhysicalNetwork).Name, nil) },
			Synced: func() { k.heard(string(kube.PhysicalNetworks)) },
		},
		// Nothing waits for these: networks do not need them, and an older cluster has none.
		kube.DevicePools: {
			Put:  func(o any) { k.setPool(o.(*v1alpha1.DevicePool).Name, o.(*v1alpha1.DevicePool)) },
			Drop: func(o any) { k.setPool(o.(*v1alpha1.DevicePool).Name, nil) },
		},
	}
}

// follow keeps what is known of one resource until ctx ends.
func (k *Keeper) follow(ctx context.Context, s source) {
	r := k.Client.Resource(s.of)
	put := func(o any) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return
		}
		if err := s.put(u); err != nil {
			k.log.Warn("object not readable", "object", s.name+"/"+u.GetName(), "err", err)
		}
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return r.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return r.Watch(ctx, o)
		},
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, k.Client), ObjectType: &unstructured.Unstructured{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: put, UpdateFunc: func(_, o any) { put(o) },
			DeleteFunc: func(o any) {
				if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = gone.Obj
				}
				if u, ok := o.(*unstructured.Unstructured); ok {
					s.drop(cache.MetaObjectToName(u).String())
				}
			},
		},
	})
	go func() {
		select {
		case <-informer.HasSyncedChecker().Done():
			k.heard(s.name)
		case <-ctx.Done():
		}
	}()
	informer.RunWithContext(ctx)
}

// putDefinition reads a NetworkAttachmentDefinition.
func (k *Keeper) putDefinition(u *unstructured.Unstructured) error {
	d := &claims.Definition{
		Namespace: u.GetNamespace(), Name: u.GetName(), UID: string(u.GetUID()), Created: u.GetCreationTimestamp().Time,
	}
	text, _, err := unstructured.NestedString(u.Object, "spec", "config")
	if err != nil {
		d.Err = fmt.Errorf("spec.config: %w", err)
	} else if !d.Parse(text) {
		d = nil
	}
	o := &nad{text: text, ObjectMeta: metav1.ObjectMeta{
		Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(), OwnerReferences: u.GetOwnerReferences(),
	}}
	k.setDefinition(keyOf(u), d, o)
	return nil
}

func decode[T any](u *unstructured.Unstructured) (*T, error) {
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return out, nil
}
