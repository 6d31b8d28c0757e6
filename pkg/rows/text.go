package rows

import (
	"slices"
	"strconv"
	"strings"
)

// Format is the text of rows and edges: sorted, with symbolic references and
// without UUIDs, so that two equal outputs have equal text and a difference can
// be read. Parse is its inverse.
//
//	NB:Logical_Switch_Port(default_web)  parent NB:Logical_Switch(node1).ports  uses NB/meter/arp
//	  addresses "0a:58:0a:f4:00:05 10.244.0.5"
//	  options requested-chassis="node1"
//	edge NB:Address_Set(a1).addresses "10.244.0.5"
//
// An ID or name that holds a space, a quote, a backslash, a parenthesis or
// anything but printable ASCII is quoted as Go quotes strings, and so is a map's
// key that could be taken for another kind of atom.
func Format(rs []Row, es []Edge) string {
	var b strings.Builder
	for _, r := range slices.SortedStableFunc(slices.Values(rs), func(a, b Row) int { return a.Ref.Compare(b.Ref) }) {
		b.WriteString(FormatRow(r))
	}
	for _, e := range slices.SortedFunc(slices.Values(es), Edge.Compare) {
		b.WriteString(FormatEdge(e))
		b.WriteByte('\n')
	}
	return b.String()
}

// FormatRow is one row's text: a line that identifies it and one for each column.
func FormatRow(r Row) string {
	var b strings.Builder
	b.WriteString(FormatRef(r.Ref))
	if !r.Parent.Row.IsZero() {
		b.WriteString("  parent " + FormatRef(r.Parent.Row) + "." + r.Parent.Column)
	}
	if len(r.Uses) > 0 {
		b.WriteString("  uses")
		for _, n := range r.Uses {
			b.WriteString(" " + string(n.DB) + "/" + string(n.Kind) + "/" + bare(n.Name))
		}
	}
	b.WriteByte('\n')
	for _, c := range r.Columns {
		b.WriteString("  " + c.Name)
		if len(c.Value) > 0 {
			b.WriteString(" " + FormatValue(c.Value))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FormatEdge is one edge's text, without the end of the line.
func FormatEdge(e Edge) string {
	return "edge " + FormatRef(e.Row) + "." + e.Column + " " + FormatValue(Value{{Key: e.Key, Value: e.Value}})
}

// FormatValue is the text of a column's value: elements, or key=value entries,
// separated by blanks.
func FormatValue(v Value) string {
	parts := make([]string, len(v))
	for i, p := range v {
		if p.Value.Kind == None {
			parts[i] = formatAtom(p.Key)
			continue
		}
		key := formatAtom(p.Key)
		if p.Key.Kind == String && isWord(p.Key.Str) {
			key = p.Key.Str
		}
		parts[i] = key + "=" + formatAtom(p.Value)
	}
	return strings.Join(parts, " ")
}

// FormatRef is a reference's text: Ref.String, with the ID quoted where it must be.
func FormatRef(r Ref) string { return string(r.Table) + "(" + bare(r.ID) + ")" }

func formatAtom(a Atom) string {
	if a.Kind == Reference {
		return FormatRef(a.Ref)
	}
	return a.String()
}

// bare is s itself where a reader can tell where it ends, else s quoted.
func bare(s string) string {
	if s == "" || strings.ContainsFunc(s, func(c rune) bool { return !isBare(c) }) {
		return strconv.Quote(s)
	}
	return s
}

func isBare(c rune) bool {
	return c > ' ' && c < 0x7f && !strings.ContainsRune(`"\()`, c)
}

// isWord reports whether a map's key needs no quotes.
func isWord(s string) bool {
	if s == "" || s == "true" || s == "false" || strings.ContainsFunc(s, func(c rune) bool { return !isWordRune(c) }) {
		return false
	}
	c := s[0]
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func isWordRune(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_-./:", c)
}
