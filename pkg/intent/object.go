package intent

import (
	"cmp"
	"strings"
)

// Kind names a kind of intent object.
type Kind string

// The kinds. Set and Member are derived in the store (see membership.go).
const (
	KindBlock           Kind = "Block"
	KindClaim           Kind = "IPAMClaim"
	KindCluster         Kind = "Cluster"
	KindDefinition      Kind = "Definition"
	KindDevicePool      Kind = "DevicePool"
	KindMember          Kind = "Member"
	KindNamespace       Kind = "Namespace"
	KindNetwork         Kind = "Network"
	KindNode            Kind = "Node"
	KindPhysicalNetwork Kind = "PhysicalNetwork"
	KindPod             Kind = "Pod"
	KindPresence        Kind = "Presence"
	KindSet             Kind = "Set"
)

// Key identifies an object. Name is "namespace/name" for namespaced kinds.
type Key struct {
	Kind Kind
	Name string
}

// String is the key's text form: Pod/default/web-0.
func (k Key) String() string { return string(k.Kind) + "/" + k.Name }

// Compare orders keys by kind, then name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Name, o.Name))
}

// ParseKey is the inverse of Key.String.
func ParseKey(s string) (Key, bool) {
	kind, name, ok := strings.Cut(s, "/")
	return Key{Kind(kind), name}, ok && kind != "" && name != ""
}

// Index names a secondary index; Bucket is one of its values.
type Index string

// Bucket is the set of objects of one kind that an index files under a value.
type Bucket struct {
	Index Index
	Value string
}

// Object is one intent value. Implementations are pointers to structs that are
// never changed after they are put into a Store.
type Object interface {
	// Key identifies the object.
	Key() Key
	// Buckets lists where the object is filed, in any order; may be nil.
	Buckets() []Bucket
	// Equal reports whether nothing that a unit could read differs; o has the same kind.
	Equal(o Object) bool
}

// Kinds has an empty object of every kind that a door puts into a store: all but
// the derived ones. It is for what must handle objects of any kind, such as a
// recording; compilers have no use for it.
func Kinds() map[Kind]Object {
	return map[Kind]Object{
		KindCluster: &Cluster{}, KindHost: &Host{}, KindNamespace: &Namespace{}, KindNetwork: &Network{},
		KindNode: &Node{}, KindPod: &Pod{}, KindBlock: &Block{}, KindDefinition: &Definition{},
		KindPhysicalNetwork: &PhysicalNetwork{}, KindPresence: &Presence{}, KindClaim: &Claim{}, KindDevicePool: &DevicePool{},
	}
}
