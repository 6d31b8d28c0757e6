package kube

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	ipamclaims "github.com/k8snetworkplumbingwg/ipamclaims/pkg/crd/ipamclaims/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Dynamic is a connection to the API server for kinds that it is told of by
// CustomResourceDefinitions.
type Dynamic = dynamic.Interface

// ConnectDynamic makes a client of such kinds. It does not touch the network.
func (c ClientConfig) ConnectDynamic() (Dynamic, error) {
	cfg, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(cfg)
}

// Attachment is a NetworkAttachmentDefinition cut to what is read of it.
type Attachment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Config string `json:"config,omitempty"`
	} `json:"spec"`
}

// annotationResource names the device pool of a definition.
const annotationResource = "k8s.v1.cni.cncf.io/resourceName"

// ParseDefinition makes the intent of a NetworkAttachmentDefinition.
func ParseDefinition(a *Attachment) *intent.Definition {
	return &intent.Definition{
		Namespace: a.Namespace, Name: a.Name, UID: string(a.UID), Config: a.Spec.Config, Resource: a.Annotations[annotationResource],
	}
}

// ClaimResource names the resource of IPAMClaims.
func ClaimResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1alpha1", Resource: "ipamclaims"}
}

// ParseClaim makes the intent of an IPAMClaim, whose status is none.
func ParseClaim(c *ipamclaims.IPAMClaim) *intent.Claim {
	return &intent.Claim{Namespace: c.Namespace, Name: c.Name, Network: c.Spec.Network}
}

// custom is a source of objects of a CustomResourceDefinition.
type custom struct {
	resource schema.GroupVersionResource
	decode   func(*unstructured.Unstructured) (any, error) // trimmed
	parse    parseFunc
}

// customs are the sources that need a Dynamic client.
func customs() map[Source]custom {
	ours := func(resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: resource}
	}
	return map[Source]custom{
		Networks: {ours("networks"), decodeTo[v1alpha1.Network], func(o any) (intent.Object, []rows.Problem) {
			return present(ParseNetwork(o.(*v1alpha1.Network)))
		}},
		AddressBlocks: {ours("addressblocks"), decodeTo[v1alpha1.AddressBlock], func(o any) (intent.Object, []rows.Problem) {
			return present(ParseBlock(o.(*v1alpha1.AddressBlock)))
		}},
		PhysicalNetworks: {ours("physicalnetworks"), decodeTo[v1alpha1.PhysicalNetwork], func(o any) (intent.Object, []rows.Problem) {
			return present(ParsePhysicalNetwork(o.(*v1alpha1.PhysicalNetwork)))
		}},
		DevicePools: {ours("devicepools"), decodeTo[v1alpha1.DevicePool], func(o any) (intent.Object, []rows.Problem) {
			return present(ParseDevicePool(o.(*v1alpha1.DevicePool)))
		}},
		Definitions: {
			schema.GroupVersionResource{Group: "k8s.cni.cncf.io", Version: "v1", Resource: "network-attachment-definitions"},
			decodeTo[Attachment], func(o any) (intent.Object, []rows.Problem) { return ParseDefinition(o.(*Attachment)), nil },
		},
		Claims: {ClaimResource(), decodeTo[ipamclaims.IPAMClaim], func(o any) (intent.Object, []rows.Problem) {
			return ParseClaim(o.(*ipamclaims.IPAMClaim)), nil
		}},
	}
}

// present is an untyped nil for an object without intent.
func present[T any, P interface {
	*T
	intent.Object
}](o P, problems []rows.Problem) (intent.Object, []rows.Problem) {
	if o == nil {
		return nil, problems
	}
	return o, problems
}

// decodeTo makes an object of a type, without what nobody reads.
func decodeTo[T any](u *unstructured.Unstructured) (any, error) {
	unstructured.RemoveNestedField(u.Object, "metadata", "managedFields")
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("%s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return out, nil
}

// customInformer makes the informer of a source of custom resources.
func (w *Watch) customInformer(s Source, c custom) cache.Controller {
	_, tapped := w.Taps[s]
	lw := &cache.ListWatch{}
	client := w.Dynamic.Resource(c.resource)
	lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(client.List, client.Watch, nil)
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, w.Dynamic), ObjectType: &unstructured.Unstructured{},
		Handler: w.handler(w.Taps[s], c.parse, func(func(any), string) {}),
		Transform: func(o any) (any, error) {
			u, ok := o.(*unstructured.Unstructured)
			if !ok {
				return o, nil
			}
			if !tapped { // no intent has a status
				unstructured.RemoveNestedField(u.Object, "status")
			}
			return c.decode(u)
		},
	})
	return controller
}

// How an API server is asked for a kind that it does not know: at first it may only
// not know it yet, so it is asked again before that is believed.
const (
	absentLooks = 3
	absentPause = time.Second
	absentAgain = 10 * time.Second
)

// runCustom follows a source of custom resources. While the API server does not know
// the kind there are no objects of it: the source has delivered all, a Problem says
// what is missing, and the kind is looked for.
func (w *Watch) runCustom(ctx context.Context, s Source, c custom) {
	name := c.resource.GroupResource().String()
	key := intent.Key{Kind: intent.KindCluster, Name: name}
	for looks := 1; ; looks++ {
		_, err := w.Dynamic.Resource(c.resource).List(ctx, metav1.ListOptions{Limit: 1})
		if !apierrors.IsNotFound(err) {
			break // also errors: the informer tries again, and says so
		}
		pause := absentPause
		if looks == absentLooks {
			slog.Warn("the API server does not know a kind", "kind", name)
			w.absent(s, key, rows.Problem{Object: key.String(), Severity: rows.Warning, Message: fmt.Sprintf(
				"the API server does not know %s, so there are none: apply the CustomResourceDefinition (deploy/base/crds); it is looked for every %s", name, absentAgain)})
		}
		if looks >= absentLooks {
			pause = absentAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	if w.Problems != nil {
		w.mu.Lock()
		w.Problems(key, nil)
		w.mu.Unlock()
	}
	w.follow(ctx, s, w.customInformer(s, c))
}

// absent tells that a source has nothing, and why.
func (w *Watch) absent(s Source, key intent.Key, p rows.Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Problems != nil {
		w.Problems(key, []rows.Problem{p})
	}
	w.sync(s)
}
