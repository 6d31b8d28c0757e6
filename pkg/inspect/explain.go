package inspect

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// subject is what a question may mean: exactly one field is set.
type subject struct {
	row    rows.Ref
	unit   engine.Unit
	object intent.Key
}

// String is the question that has only this answer.
func (s subject) String() string {
	switch {
	case !s.row.IsZero():
		return rows.FormatRef(s.row)
	case s.unit != engine.Unit{}:
		return s.unit.String()
	}
	return s.object.String()
}

// Explain tells where a row, a unit or what an object spawns comes from.
func (s *Server) Explain(ctx context.Context, asked string) (Explanation, error) {
	ex := Explanation{Asked: asked, Units: []ExplainedUnit{}}
	if strings.TrimSpace(asked) == "" {
		return ex, refuse(http.StatusBadRequest, "what is to be explained? %s", questions)
	}
	var found []subject
	var elements []engine.EdgeInfo
	err := s.src.Driver.Do(ctx, func() {
		found = subjects(s.src.Engine, asked)
		if len(found) != 1 {
			return
		}
		ex, elements = explain(s.src.Engine, ex, found[0])
	})
	if err != nil {
		return ex, err
	}
	switch len(found) {
	case 0:
		return ex, refuse(http.StatusNotFound, "nothing of ours is called %q here: %s", asked, questions)
	case 1:
		ex.Elements = edgesOf(elements)
		return ex, nil
	}
	fail := &userError{Failure{Error: strconv.Quote(asked) + " may mean several things, ask for one of them"}, http.StatusConflict}
	for _, f := range found {
		fail.Candidates = append(fail.Candidates, f.String())
	}
	return ex, fail
}

const questions = "wanted a row (NB:Logical_Switch_Port(demo_east), Logical_Switch_Port/demo_east, its id or its UUID), " +
	"a unit (pod/demo/east) or an object (Pod/demo/east, Network/blue, NetworkAttachmentDefinition/demo/blue)"

// subjects lists what a question may mean, in order.
func subjects(e *engine.Engine, asked string) []subject {
	if table, id, ok := refText(asked); ok {
		return rowSubjects(e, func(r rows.Ref) bool { return r.ID == id && named(r.Table, table) })
	}
	if u, err := uuid.Parse(asked); err == nil && len(asked) == 36 {
		return rowSubjects(e, func(r rows.Ref) bool { return r.UUID() == u.String() })
	}
	var out []subject
	head, rest, _ := strings.Cut(asked, "/")
	if u := (engine.Unit{Kind: head, Key: rest}); exists(e, u) {
		return []subject{{unit: u}}
	}
	if k, ok := clustersName(e, head, rest); ok {
		return []subject{{object: k}}
	}
	if k, ok := intent.ParseKey(asked); ok {
		if _, ok := e.Object(k); ok {
			return []subject{{object: k}}
		}
	}
	if len(tablesNamed(head)) > 0 && rest != "" {
		out = rowSubjects(e, func(r rows.Ref) bool { return r.ID == rest && named(r.Table, head) })
	}
	if len(out) == 0 {
		out = rowSubjects(e, func(r rows.Ref) bool { return r.ID == asked })
	}
	return out
}

// clustersName finds the intent of an object that has another name in the cluster:
// definitions and user-defined networks are of a network.
func clustersName(e *engine.Engine, kind, name string) (intent.Key, bool) {
	network := ""
	switch kind {
	case "NetworkAttachmentDefinition", "Definition":
		if n, ok := intent.NewView(e.Store()).NetworkOf(name); ok {
			network = n.Name
		}
	case "UserDefinedNetwork":
		network = strings.Replace(name, "/", "_", 1)
	case "ClusterUserDefinedNetwork":
		network = "cluster_udn_" + name
	case "AddressBlock":
		at := strings.LastIndexByte(name, '.')
		k := intent.Key{Kind: intent.KindBlock, Name: name[at+1:] + "/" + name[:max(at, 0)]}
		_, ok := e.Object(k)
		return k, ok
	}
	k := intent.Key{Kind: intent.KindNetwork, Name: network}
	_, ok := e.Object(k)
	return k, ok
}

func exists(e *engine.Engine, u engine.Unit) bool {
	_, ok := e.Explain(u)
	return ok
}

func named(t rows.Table, name string) bool { return string(t) == name || t.Name() == name }

// refText reads NB:Table(id) and Table(id), with the id quoted or not.
func refText(s string) (table, id string, ok bool) {
	table, id, ok = strings.Cut(strings.TrimSuffix(s, ")"), "(")
	if !ok || !strings.HasSuffix(s, ")") || len(tablesNamed(table)) == 0 {
		return "", "", false
	}
	if q, err := strconv.Unquote(id); err == nil {
		id = q
	}
	return table, id, true
}

func rowSubjects(e *engine.Engine, is func(rows.Ref) bool) []subject {
	var out []subject
	for _, db := range databases() {
		for _, r := range e.Rows(db) {
			if is(r.Row.Ref) {
				out = append(out, subject{row: r.Row.Ref})
			}
		}
	}
	slices.SortFunc(out, func(a, b subject) int { return a.row.Compare(b.row) })
	return out
}

func explain(e *engine.Engine, ex Explanation, what subject) (Explanation, []engine.EdgeInfo) {
	units := []engine.Unit{what.unit}
	var elements []engine.EdgeInfo
	switch {
	case !what.row.IsZero():
		info, _ := e.Row(what.row)
		row := rowOf(info)
		ex.Row = &row
		units = []engine.Unit{info.Unit}
		elements = slices.DeleteFunc(e.Edges(what.row.Table.DB()), func(x engine.EdgeInfo) bool { return x.Edge.Row != what.row })
	case what.object != intent.Key{}:
		units = e.Spawned(what.object)
	}
	for _, u := range units {
		ex.Units = append(ex.Units, explainUnit(e, u))
	}
	return ex, elements
}

func explainUnit(e *engine.Engine, u engine.Unit) ExplainedUnit {
	known, _ := e.Explain(u)
	x := ExplainedUnit{
		Unit:    unitOf(e, engine.UnitInfo{Unit: u, Group: known.Group, Rows: len(known.Rows), Edges: len(known.Edges)}),
		Objects: []string{}, Reads: known.Reads, Output: []Row{},
	}
	for _, k := range e.Spawners(u) {
		x.Objects = append(x.Objects, k.String())
	}
	for _, r := range known.Rows {
		info, ok := e.Row(r.Ref)
		if !ok || info.Unit != u { // another unit, before it in the registry, has its way
			info = engine.RowInfo{Row: r, Unit: u}
		}
		x.Output = append(x.Output, rowOf(info))
	}
	var links []engine.EdgeInfo
	for _, edge := range known.Edges {
		if info, ok := e.Edge(edge); ok {
			links = append(links, info)
		}
	}
	x.Links = edgesOf(links)
	for _, g := range groupsOf(e) {
		if g.Name == known.Group {
			x.Waiting = append(x.Waiting, g)
		}
	}
	for _, p := range known.Problems {
		x.Problems = append(x.Problems, problemOf(p))
	}
	slices.SortFunc(x.Problems, func(a, b Problem) int { return cmp.Compare(a.Object+a.Field, b.Object+b.Field) })
	return x
}
