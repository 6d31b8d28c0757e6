package rows

import (
	"slices"
	"strings"
	"testing"
)

func TestSchemaIsSortedAndClosed(t *testing.T) {
	for table, s := range schema {
		if !s.ExternalIDs && len(s.Indexes) == 0 {
			t.Errorf("%s: neither external_ids nor an index: its rows cannot be known again", table)
		}
		if !slices.IsSortedFunc(s.Columns, func(a, b ColumnSchema) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: columns are not sorted", table)
		}
		for _, c := range s.Columns {
			for _, ref := range []Table{c.RefTable, c.ValueRefTable} {
				if _, ok := SchemaOf(ref); ref != "" && !ok {
					t.Errorf("%s.%s refers to %s, which was left out", table, c.Name, ref)
				}
			}
		}
	}
	for _, db := range []DB{NB, SB, OVS} {
		if len(Tables(db)) == 0 {
			t.Errorf("no tables in %s", db)
		}
	}
}

func TestRowValidate(t *testing.T) {
	sw := Ref{"NB:Logical_Switch", "n1"}
	cases := []struct {
		name string
		row  Row
		want string // "" for valid
	}{
		{"root", New(sw.Table, "n1", map[string]Value{"name": Str("n1"), "other_config": Map(map[string]string{"a": "b"})}), ""},
		{"child", Child("NB:Logical_Switch_Port", "p", sw, "ports", map[string]Value{"name": Str("p")}), ""},
		{"natural id", New("NB:Load_Balancer_Group", "g", map[string]Value{"name": Str("g")}), ""},
		{"natural id of two", Child("SB:Encap", "geneve/10.0.0.1", Ref{"SB:Chassis", "c"}, "encaps",
			map[string]Value{"type": Str("geneve"), "ip": Str("10.0.0.1")}), ""},
		{"not the natural id", New("NB:Load_Balancer_Group", "x", map[string]Value{"name": Str("g")}), `wanted "g"`},
		{"unknown table", New("NB:Nothing", "x", nil), "no table"},
		{"table of others", New("SB:Port_Binding", "x", nil), "others write"},
		{"column of others", Child("NB:Logical_Switch_Port", "p", sw, "ports", map[string]Value{"up": Flag(true)}), `no column "up"`},
		{"kind", New(sw.Table, "n1", map[string]Value{"name": Num(1)}), "integer found, wanted string"},
		{"map for set", New(sw.Table, "n1", map[string]Value{"name": Map(map[string]string{"a": "b"})}), "value string found, wanted none"},
		{"set for map", New(sw.Table, "n1", map[string]Value{"other_config": Strings("a")}), "value none found, wanted string"},
		{"two in a scalar", New(sw.Table, "n1", map[string]Value{"name": Strings("a", "b")}), "2 elements, wanted one"},
		{"reference", New(sw.Table, "n1", map[string]Value{"copp": Set(R(sw))}), "refers to NB:Logical_Switch, wanted NB:Copp"},
		{"orphan", New("NB:Logical_Switch_Port", "p", nil), "no parent"},
		{"parent of a root", Child(sw.Table, "n2", sw, "ports", nil), "wanted none"},
		{"weak parent", Child("NB:Logical_Switch_Port", "p", Ref{"NB:Port_Group", "g"}, "ports", nil), "not a strong reference"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { wantError(t, c.row.Validate(), c.want) })
	}
}

func TestEdgeValidate(t *testing.T) {
	pg := Ref{"NB:Port_Group", "g"}
	cases := []struct {
		name string
		edge Edge
		want string
	}{
		{"set", Member(pg, "ports", R(Ref{"NB:Logical_Switch_Port", "p"})), ""},
		{"map", Entry(Ref{"NB:NB_Global", Singleton}, "options", "k", "v"), ""},
		{"optional scalar", Member(Ref{"NB:Logical_Switch", "n"}, "copp", R(Ref{"NB:Copp", "c"})), ""},
		{"scalar", Member(pg, "name", S("x")), "scalar belongs to the row's owner"},
		{"kind", Member(pg, "ports", S("p")), "string found, wanted uuid"},
		{"column of others", Member(Ref{"NB:NB_Global", Singleton}, "nb_cfg", I(1)), "others write"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { wantError(t, c.edge.Validate(), c.want) })
	}
}

func TestColumnIsDefault(t *testing.T) {
	lsp, _ := SchemaOf("NB:Logical_Switch_Port")
	name, _ := lsp.Column("name")
	peer, _ := lsp.Column("peer")
	if !name.IsDefault(Str("")) || name.IsDefault(Str("x")) || !name.IsDefault(nil) {
		t.Error(`a required scalar's default is ""`)
	}
	if peer.IsDefault(Str("")) || !peer.IsDefault(nil) {
		t.Error(`an optional scalar's default is nothing; "" is a value`)
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("found %v, wanted no error", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Fatalf("found %v, wanted an error with %q", err, want)
	}
}
