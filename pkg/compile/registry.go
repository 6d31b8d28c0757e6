// Package compile is the ordered list of features. Each is a directory here: one
// pure function from what the cluster says to what the databases should hold.
//
//	intent.View ──> topology, pod, vswitch, … ──> rows.Output
//
// A feature sees rows, intent and api, never another feature and never the
// engine; the registry alone ties them together. The order is that of compiling
// and, should two units contribute different values to one place (a bug), that
// of precedence.
package compile

import (
	"strings"

	"github.com/portolan-cni/portolan/pkg/compile/pod"
	"github.com/portolan-cni/portolan/pkg/compile/topology"
	"github.com/portolan-cni/portolan/pkg/compile/vswitch"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Kinds lists every unit kind. A process that drives fewer databases, such as a
// controller without an Open_vSwitch of its own, runs the same list: units whose
// intent it does not have say nothing.
func Kinds() []engine.UnitKind {
	return []engine.UnitKind{
		{Name: "vswitch", Spawn: each(intent.KindHost), Compile: vswitch.Compile},
		{Name: "cluster", Spawn: each(intent.KindCluster), Compile: topology.Cluster},
		{Name: "node", Spawn: each(intent.KindNode), Compile: topology.Node},
		{Name: "network", Spawn: each(intent.KindNetwork), Compile: topology.Network},
		{Name: "presence", Spawn: each(intent.KindPresence), Compile: topology.Presence},
		{Name: "block", Spawn: each(intent.KindBlock), Compile: topology.Block},
		{Name: "pod", Spawn: each(intent.KindPod), Compile: pod.Compile},
	}
}

// each spawns one unit for every object of a kind, under the object's name.
func each(kind intent.Kind) map[intent.Kind]func(intent.Object) string {
	return map[intent.Kind]func(intent.Object) string{kind: func(o intent.Object) string { return o.Key().Name }}
}

// ObjectOf is the object that a group of Kinds stands for, where a problem with
// the group is shown; the zero Key for none.
func ObjectOf(group string) intent.Key {
	kind, key, _ := strings.Cut(group, "/")
	switch kind {
	case "vswitch", "node":
		return intent.Key{Kind: intent.KindNode, Name: key}
	case "cluster":
		return intent.ClusterKey
	case "network":
		return intent.Key{Kind: intent.KindNetwork, Name: key}
	case "presence", "block":
		_, network, _ := strings.Cut(key, "/")
		return intent.Key{Kind: intent.KindNetwork, Name: network}
	case "pod":
		return intent.Key{Kind: intent.KindPod, Name: key}
	}
	return intent.Key{}
}
