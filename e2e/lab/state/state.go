// Package state answers what a node holds because of Portolan, in a form in which
// two answers can be compared: before a fault and after it, or beside a fresh
// install's.
//
//	ovsdb-server ×3 ──select──┐
//	ovs-ofctl, nft, ip ───────┼─> State: section, name, fields ──Diff──> lines
//	/etc/cni, /var/lib … ─────┘
//
// What differs from one start to the next without anything being different is left
// out or given a name: counters, UUIDs, port numbers, tunnel keys and conntrack
// zones that OVN chose, names of pods' veths, sandbox ids.
package state

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Key names one thing that a node holds.
type Key struct {
	Section string // "NB Logical_Switch_Port", "route", "nft" …
	Name    string // unique in its section
}

// State is all that a node holds: the fields of each thing.
type State map[Key]map[string]string

// add files a thing; one of the same name gets a number behind its own.
func (s State) add(section, name string, fields map[string]string) {
	k := Key{section, name}
	for i := 2; s[k] != nil; i++ {
		k.Name = fmt.Sprintf("%s #%d", name, i)
	}
	if fields == nil {
		fields = map[string]string{}
	}
	s[k] = fields
}

// Without leaves out what a tool of the tests has made: every thing in whose name
// one of the words occurs, and every element of a list in which one does.
func (s State) Without(words ...string) State {
	named := func(text string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	out := State{}
	for k, fields := range s {
		if named(k.Name) {
			continue
		}
		kept := map[string]string{}
		for f, v := range fields {
			var parts []string
			for _, p := range strings.Split(v, ", ") {
				if !named(p) {
					parts = append(parts, p)
				}
			}
			kept[f] = strings.Join(parts, ", ")
		}
		out[k] = kept
	}
	return out
}

// keys lists the things in order.
func (s State) keys() []Key {
	return slices.SortedFunc(maps.Keys(s), func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Name, b.Name))
	})
}

// Difference is one thing that two states do not have alike.
type Difference struct {
	Key
	Kind   byte     // '-' only the first has it, '+' only the second, '~' its fields differ
	Fields []string // of '~': "field: before → after"; else the fields as they are
}

// String is a line, or a few where fields differ.
func (d Difference) String() string {
	line := fmt.Sprintf("%c %s %s", d.Kind, d.Section, d.Name)
	if d.Kind != '~' {
		return strings.TrimSpace(line + "  " + strings.Join(d.Fields, " "))
	}
	return line + "\n    " + strings.Join(d.Fields, "\n    ")
}

// Diff lists what makes two states different; nothing if they are equal.
func Diff(before, after State) []Difference {
	var out []Difference
	for _, k := range before.keys() {
		a, b := before[k], after[k]
		switch {
		case b == nil:
			out = append(out, Difference{Key: k, Kind: '-', Fields: list(a)})
		case !maps.Equal(a, b):
			out = append(out, Difference{Key: k, Kind: '~', Fields: changes(a, b)})
		}
	}
	for _, k := range after.keys() {
		if before[k] == nil {
			out = append(out, Difference{Key: k, Kind: '+', Fields: list(after[k])})
		}
	}
	return out
}

func list(fields map[string]string) []string {
	var out []string
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		out = append(out, f+"="+fields[f])
	}
	return out
}

func changes(a, b map[string]string) []string {
	var out []string
	all := maps.Clone(a)
	maps.Copy(all, b)
	for _, f := range slices.Sorted(maps.Keys(all)) {
		x, inA := a[f]
		y, inB := b[f]
		switch {
		case !inA:
			out = append(out, fmt.Sprintf("%s: nothing → %s", f, y))
		case !inB:
			out = append(out, fmt.Sprintf("%s: %s → nothing", f, x))
		case x != y:
			out = append(out, fmt.Sprintf("%s: %s → %s", f, x, y))
		}
	}
	return out
}

// Text is the first lines of a diff, for a test's log.
func Text(diff []Difference) string {
	const most = 40
	var b strings.Builder
	for i, d := range diff {
		if i == most {
			fmt.Fprintf(&b, "… and %d more\n", len(diff)-most)
			break
		}
		fmt.Fprintln(&b, d)
	}
	return b.String()
}

// Write prints a state so that Read finds the same again: a line for each thing,
// its parts separated by tabs.
func (s State) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, k := range s.keys() {
		parts := append([]string{k.Section, k.Name}, list(s[k])...)
		for i, p := range parts {
			parts[i] = escape.Replace(p)
		}
		fmt.Fprintln(out, strings.Join(parts, "\t"))
	}
	return out.Flush()
}

var (
	escape   = strings.NewReplacer("\\", `\\`, "\t", `\t`, "\n", `\n`)
	unescape = strings.NewReplacer(`\\`, "\\", `\t`, "\t", `\n`, "\n")
)

// Read reads what Write has printed.
func Read(r io.Reader) (State, error) {
	s := State{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		parts := strings.Split(lines.Text(), "\t")
		if len(parts) < 2 {
			return nil, fmt.Errorf("line %d: %.40q is not a line of `lab state`", n, lines.Text())
		}
		fields := map[string]string{}
		for _, p := range parts[2:] {
			name, val, _ := strings.Cut(unescape.Replace(p), "=")
			fields[name] = val
		}
		s[Key{unescape.Replace(parts[0]), unescape.Replace(parts[1])}] = fields
	}
	return s, lines.Err()
}

// rename replaces what is called differently after each start by what it is.
func (s State) rename(names map[string]string) State {
	var pairs []string
	for _, old := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { // the longest first
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	}) {
		pairs = append(pairs, old, names[old])
	}
	if pairs == nil {
		return s
	}
	r := strings.NewReplacer(pairs...)
	out := State{}
	for _, k := range s.keys() {
		fields := map[string]string{}
		for f, v := range s[k] {
			if fields[f] = r.Replace(v); strings.HasPrefix(v, arrow) { // a set of rows, in the order of their names
				parts := strings.Split(fields[f], ", ")
				slices.Sort(parts)
				fields[f] = strings.Join(parts, ", ")
			}
		}
		out.add(k.Section, r.Replace(k.Name), fields)
	}
	return out
}
