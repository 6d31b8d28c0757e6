package networks

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/portolan-cni/portolan/pkg/api/k8sovn/v1"
)

// labelUserDefined is on every definition that is rendered, as OVN-Kubernetes has it.
const labelUserDefined = "k8s.ovn.org/user-defined-network"

// userDefined is a UserDefinedNetwork or a ClusterUserDefinedNetwork.
type userDefined struct {
	kind string
	metav1.ObjectMeta
	spec     v1.NetworkSpec
	selector *metav1.LabelSelector // of a ClusterUserDefinedNetwork
	status   v1.Status
}

// network is the name of the network that it makes, as OVN-Kubernetes forms it.
func (u *userDefined) network() string {
	if u.kind == v1.KindCUDN {
		return "cluster_udn_" + u.Name
	}
	return u.Namespace + "_" + u.Name
}

// object names it in messages: UserDefinedNetwork/ns/name.
func (u *userDefined) object() string {
	return strings.TrimSuffix(u.kind+"/"+u.Namespace, "/") + "/" + u.Name
}

func (u *userDefined) resource() schema.GroupVersionResource { return userDefinedResource(u.kind) }

func userDefinedResource(kind string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "k8s.ovn.org", Version: "v1", Resource: strings.ToLower(kind) + "s"}
}

// nad is a definition as an object: who owns it, and what it says.
type nad struct {
	metav1.ObjectMeta
	text string
}

// refusal is the API server's answer to a definition, which it would give again.
type refusal struct {
	cause error
	until time.Time
}

const refusedPause = 30 * time.Second

// owner is the user-defined network that a definition was rendered for.
func (n *nad) owner() *metav1.OwnerReference {
	o := metav1.GetControllerOfNoCopy(n)
	if o == nil || o.APIVersion != v1.APIVersion || o.Kind != v1.KindUDN && o.Kind != v1.KindCUDN {
		return nil
	}
	return o
}

// userDefinedSources follow both kinds.
func (k *Keeper) userDefinedSources() []source {
	follow := func(kind string, read func(*unstructured.Unstructured) (*userDefined, error)) source {
		return source{
			name: kind, of: userDefinedResource(kind),
			put: func(o *unstructured.Unstructured) error {
				u, err := read(o)
				if err == nil {
					k.setUserDefined(kind+"/"+keyOf(o), u)
				}
				return err
			},
			drop: func(key string) { k.setUserDefined(kind+"/"+key, nil) },
		}
	}
	return []source{
		follow(v1.KindUDN, func(o *unstructured.Unstructured) (*userDefined, error) {
			u, err := decode[v1.UserDefinedNetwork](o)
			if err != nil {
				return nil, err
			}
			spec := v1.NetworkSpec{Topology: u.Spec.Topology, Layer2: u.Spec.Layer2, Layer3: u.Spec.Layer3}
			return &userDefined{kind: v1.KindUDN, ObjectMeta: u.ObjectMeta, spec: spec, status: u.Status}, nil
		}),
		follow(v1.KindCUDN, func(o *unstructured.Unstructured) (*userDefined, error) {
			u, err := decode[v1.ClusterUserDefinedNetwork](o)
			if err != nil {
				return nil, err
			}
			return &userDefined{kind: v1.KindCUDN, ObjectMeta: u.ObjectMeta, spec: u.Spec.Network, selector: &u.Spec.NamespaceSelector, status: u.Status}, nil
		}),
	}
}

func keyOf(o metav1.Object) string { return strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/") }

func (k *Keeper) setUserDefined(key string, u *userDefined) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.userDefined[key]
	switch {
	case u == nil:
		delete(k.userDefined, key)
	case old != nil && old.UID == u.UID && !newer(old.ResourceVersion, u.ResourceVersion):
		return
	default:
		k.userDefined[key] = u
	}
	k.ring()
}

// userDefinedWrites render definitions, take away those that no user-defined network
// wants any more, and say how each is.
func (k *Keeper) userDefinedWrites() []write {
	var out []write
	wanted := map[string]types.UID{}
	for _, key := range slices.Sorted(maps.Keys(k.userDefined)) {
		u := k.userDefined[key]
		created := metav1.Condition{Type: v1.ConditionCreated, Status: metav1.ConditionTrue, Reason: v1.ReasonCreated}
		refuse := func(reason, message string) {
			created.Status, created.Reason, created.Message = metav1.ConditionFalse, reason, message
		}
		namespaces, err := k.namespacesOf(u)
		switch {
		case u.DeletionTimestamp != nil:
			continue
		case err != nil:
			refuse(v1.ReasonSyncError, err.Error())
		case roleOf(u.spec) == v1.Primary:
			refuse(v1.ReasonRole, "role Primary is not supported yet: every pod's primary network is the default one; make a network with role Secondary")
		default:
			writes, trouble, waits := k.renderAll(u, namespaces, wanted)
			out = append(out, writes...)
			switch {
			case len(trouble) > 0:
				refuse(v1.ReasonSyncError, strings.Join(trouble, "; "))
			case waits:
				refuse(v1.ReasonSyncError, "definitions are being written")
			case u.kind == v1.KindCUDN:
				created.Message = "NetworkAttachmentDefinitions are in the namespaces: " + cmp.Or(strings.Join(namespaces, ", "), "none is selected")
			default:
				created.Message = "the NetworkAttachmentDefinition is there"
			}
		}
		if w, ok := k.userDefinedStatus(u, created); ok {
			out = append(out, w)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(k.nads)) {
		if o := k.nads[key].owner(); o != nil && wanted[key] != o.UID {
			out = append(out, k.nadDeletion(key, k.nads[key]))
		}
	}
	return out
}

// namespacesOf lists where a user-defined network is.
func (k *Keeper) namespacesOf(u *userDefined) ([]string, error) {
	if u.kind == v1.KindUDN {
		return []string{u.Namespace}, nil
	}
	selector, err := metav1.LabelSelectorAsSelector(u.selector)
	if err != nil {
		return nil, fmt.Errorf("spec.namespaceSelector: %w", err)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(k.world.Namespaces)) {
		if selector.Matches(labels.Set(k.world.Namespaces[name])) {
			out = append(out, name)
		}
	}
	return out, nil
}

// renderAll brings one network's definitions to what they should be, and says what
// is in their way, or that they are on their way.
func (k *Keeper) renderAll(u *userDefined, namespaces []string, wanted map[string]types.UID) (out []write, trouble []string, waits bool) {
	for _, namespace := range namespaces {
		key := namespace + "/" + u.Name
		text, err := render(u.network(), key, u.spec)
		if err != nil {
			return nil, []string{err.Error()}, false
		}
		have := k.nads[key]
		no, refused := k.refused[key]
		if have != nil || refused && !k.Now().Before(no.until) {
			delete(k.refused, key)
			refused = false
		}
		switch {
		case refused:
			trouble = append(trouble, fmt.Sprintf("NetworkAttachmentDefinition %s cannot be made: %s", key, no.cause))
			out = append(out, write{object: key, after: no.until.Sub(k.Now())})
		case have == nil:
			out, waits = append(out, k.nadCreation(u, namespace, text)), true
		case have.owner() == nil || have.owner().UID != u.UID && k.lives(have.owner()):
			trouble = append(trouble, fmt.Sprintf(
				"NetworkAttachmentDefinition %s is there and is not this network's: delete it, or give this network another name", key))
			continue
		case have.owner().UID != u.UID:
			waits = true // of one that is gone: deleted first
			continue
		case have.text != text:
			out, waits = append(out, k.nadPatch(key, have, text)), true
		}
		wanted[key] = u.UID
	}
	return out, trouble, waits
}

// lives tells whether an owner is there.
func (k *Keeper) lives(o *metav1.OwnerReference) bool {
	for _, u := range k.userDefined {
		if u.UID == o.UID {
			return true
		}
	}
	return false
}

// userDefinedStatus writes both conditions where they differ.
func (k *Keeper) userDefinedStatus(u *userDefined, created metav1.Condition) (write, bool) {
	ready := metav1.Condition{Type: v1.ConditionReady, Status: metav1.ConditionFalse, Reason: created.Reason, Message: created.Message}
	if created.Status == metav1.ConditionTrue {
		ready.Reason, ready.Message = "NetworkMissing", "no definition of the network is accepted yet"
		if n := k.world.Networks[u.network()]; n != nil && len(n.Status.Conditions) > 0 {
			c := n.Status.Conditions[0]
			ready.Status, ready.Reason, ready.Message = c.Status, c.Reason, c.Message
		}
	}
	want := v1.Status{Conditions: []metav1.Condition{created, ready}}
	for i := range want.Conditions {
		c := &want.Conditions[i]
		c.LastTransitionTime = metav1.NewTime(k.Now().Truncate(time.Second))
		for _, old := range u.status.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	if equality.Semantic.DeepEqual(u.status, want) {
		return write{}, false
	}
	return write{object: u.object(), do: func(ctx context.Context) error {
		status, err := fields(want, []string{"conditions"})
		if err != nil {
			return err
		}
		_, err = k.patchOf(ctx, u.resource(), u.ObjectMeta, patch{Status: status}, "status")
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}}, true
}

func (k *Keeper) nadCreation(u *userDefined, namespace, text string) write {
	o := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"config": text}}}
	o.SetAPIVersion(Definitions().GroupVersion().String())
	o.SetKind("NetworkAttachmentDefinition")
	o.SetNamespace(namespace)
	o.SetName(u.Name)
	o.SetLabels(map[string]string{labelUserDefined: ""})
	controller := true
	o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: v1.APIVersion, Kind: u.kind, Name: u.Name, UID: u.UID, Controller: &controller}})
	return write{object: "NetworkAttachmentDefinition/" + namespace + "/" + u.Name, do: func(ctx context.Context) error {
		_, err := k.Client.Resource(Definitions()).Namespace(namespace).Create(ctx, o, metav1.CreateOptions{})
		if apierrors.IsForbidden(err) || apierrors.IsInvalid(err) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.refused[namespace+"/"+u.Name] = refusal{cause: err, until: k.Now().Add(refusedPause)}
			k.ring()
		}
		return err
	}}
}

func (k *Keeper) nadPatch(key string, have *nad, text string) write {
	return write{object: "NetworkAttachmentDefinition/" + key, do: func(ctx context.Context) error {
		spec, err := fields(map[string]string{"config": text}, nil)
		if err != nil {
			return err
		}
		_, err = k.patchOf(ctx, Definitions(), have.ObjectMeta, patch{Spec: spec})
		return err
	}}
}

func (k *Keeper) nadDeletion(key string, have *nad) write {
	uid := have.UID
	return write{object: "NetworkAttachmentDefinition/" + key, do: func(ctx context.Context) error {
		err := k.Client.Resource(Definitions()).Namespace(have.Namespace).Delete(ctx, have.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid},
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}}
}
