package engine_test

import (
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

const kindSaid intent.Kind = "Said"

// said is the toy intent: it is what its unit says. Its name is the unit's, with
// "@group" where the unit shares a group.
type said struct {
	name string
	out  rows.Output
}

func (s *said) Key() intent.Key          { return intent.Key{Kind: kindSaid, Name: s.name} }
func (s *said) Buckets() []intent.Bucket { return nil }
func (s *said) Equal(o intent.Object) bool {
	t := o.(*said)
	return rows.Format(s.out.Rows, s.out.Edges) == rows.Format(t.out.Rows, t.out.Edges)
}

// toyKinds is a registry in which every unit says what its object is.
func toyKinds() []engine.UnitKind {
	var kinds []engine.UnitKind
	for _, name := range []string{"node", "service", "policy", "pod"} {
		kinds = append(kinds, engine.UnitKind{
			Name: name,
			Spawn: map[intent.Kind]func(intent.Object) string{kindSaid: func(o intent.Object) string {
				kind, key, _ := strings.Cut(o.Key().Name, "/")
				if kind != name {
					return ""
				}
				return key
			}},
			Group: func(key string) string {
				if _, group, ok := strings.Cut(key, "@"); ok {
					return group
				}
				return name + "/" + key
			},
			Compile: func(v *intent.View, key string) rows.Output {
				s, _ := intent.Get[*said](v, intent.Key{Kind: kindSaid, Name: name + "/" + key})
				return s.out
			},
		})
	}
	return kinds
}

// toyDoor reads units: a line "unit kind/key[@group]", then rows and edges.
func toyDoor(text []byte) (objects []intent.Object, problems []rows.Problem) {
	for i, part := range strings.Split("\n"+string(text), "\nunit ") {
		if i == 0 {
			continue
		}
		name, body, _ := strings.Cut(part, "\n")
		rs, es, err := rows.Parse(body)
		if err != nil {
			panic(fmt.Sprintf("unit %s: %v", name, err))
		}
		objects = append(objects, &said{name, rows.Output{Rows: rs, Edges: es}})
	}
	return objects, nil
}
