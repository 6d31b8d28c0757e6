package pod

import (
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Compile makes the rows of the pod "namespace/name".
func Compile(v *intent.View, key string) rows.Output {
	var out rows.Output
	p, ok := intent.Get[*intent.Pod](v, intent.Key{Kind: intent.KindPod, Name: key})
	if !ok {
		return out
	}
	plan, ok := v.Cluster()
	if !ok {
		return out
	}
	node, ok := v.Node(p.Node)
	if !ok || node.Zone != plan.Zone {
		return out
	}
	att, ok := p.Attachment(intent.DefaultNetwork)
	if !ok || len(att.Addresses) == 0 {
		return out
	}
	words := []string{att.MAC}
	for _, a := range att.Addresses {
		words = append(words, a.Addr().String())
	}
	address := rows.Str(strings.Join(words, " "))
	name := rows.PodPort(p.Namespace, p.Name)
	parent := rows.Ref{Table: "NB:Logical_Switch", ID: p.Node}
	out.Add(rows.Child("NB:Logical_Switch_Port", name, parent, "ports", map[string]rows.Value{
		"name":          rows.Str(name),
		"addresses":     address,
		"port_security": address,
		"options":       rows.Map(map[string]string{"requested-chassis": p.Node, "iface-id-ver": p.UID}),
		"external_ids":  rows.Map(map[string]string{"namespace": p.Namespace, "pod": "true"}),
	}))
	return out
}
