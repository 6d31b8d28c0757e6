package engine

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// The ways in which a string names something (ovn-sb(5), Logical_Flow, match;
// ovn-nb(5), Chassis_Template_Var).
var nameForms = []struct {
	kind rows.NameKind
	form *regexp.Regexp
}{
	{rows.AddressSet, regexp.MustCompile(`\$([A-Za-z_.][A-Za-z_.0-9]*)`)},
	{rows.PortGroup, regexp.MustCompile(`@([A-Za-z_.][A-Za-z_.0-9]*)`)},
	{rows.Template, regexp.MustCompile(`\^([A-Za-z_.][A-Za-z_.0-9]*)`)},
	{rows.RouterPort, regexp.MustCompile(`"([^"]+)"`)},
}

// nameColumns are columns whose strings are names as a whole.
var nameColumns = map[string]rows.NameKind{"meter": rows.Meter, "meters": rows.Meter, "output_port": rows.RouterPort}

// usesOf reads the names that a row found in a database uses from its strings:
// what its unit said when it was written may be forgotten. A name too many only
// delays a deletion until the row is what its unit wants.
func usesOf(r *rows.Row) []rows.Name {
	var out []rows.Name
	add := func(kind rows.NameKind, name string) {
		out = append(out, rows.Name{DB: r.Table.DB(), Kind: kind, Name: name})
	}
	for _, c := range r.Columns {
		for _, p := range c.Value {
			text := cmp.Or(p.Value.Str, p.Key.Str)
			if kind, ok := nameColumns[c.Name]; ok {
				add(kind, text)
			}
			if c.Name == "name" || c.Name == "external_ids" || text == "" {
				continue
			}
			for _, f := range nameForms {
				for _, m := range f.form.FindAllStringSubmatch(text, -1) {
					add(f.kind, m[1])
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b rows.Name) int { return cmp.Compare(a.String(), b.String()) })
	return slices.Compact(out)
}
