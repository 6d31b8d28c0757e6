package rows

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Parse reads what Format writes, in any order, with empty lines and lines that
// begin with "#" left out. Rows, columns, values and edges come back in their
// canonical order. It checks syntax and repetitions, and not the schema: that is
// Row.Validate's. An error names its line.
func Parse(text string) ([]Row, []Edge, error) {
	var rs []Row
	var es []Edge
	for n, line := range strings.Split(text, "\n") {
		content := strings.TrimSpace(line)
		if content == "" || content[0] == '#' {
			continue
		}
		s := &scanner{rest: content}
		var err error
		switch {
		case line[0] == ' ' || line[0] == '\t':
			err = errors.New("a column without a row")
			if len(rs) > 0 {
				err = s.column(&rs[len(rs)-1])
			}
		case strings.HasPrefix(content, "edge "):
			var e Edge
			e, err = s.edge()
			es = append(es, e)
		default:
			var r Row
			r, err = s.row()
			rs = append(rs, r)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	slices.SortFunc(rs, func(a, b Row) int { return a.Ref.Compare(b.Ref) })
	slices.SortFunc(es, Edge.Compare)
	for i := 1; i < len(rs); i++ {
		if rs[i-1].Ref == rs[i].Ref {
			return nil, nil, fmt.Errorf("%v: the row is there twice", rs[i].Ref)
		}
	}
	for i := 1; i < len(es); i++ {
		if es[i-1] == es[i] {
			return nil, nil, fmt.Errorf("%s: the edge is there twice", FormatEdge(es[i]))
		}
	}
	return rs, es, nil
}

// scanner reads one line from the left.
type scanner struct{ rest string }

func (s *scanner) blanks() { s.rest = strings.TrimLeft(s.rest, " \t") }

// take reads a prefix if it is there.
func (s *scanner) take(prefix string) bool {
	rest, ok := strings.CutPrefix(s.rest, prefix)
	s.rest = rest
	return ok
}

// while reads the longest prefix of runes that meet ok.
func (s *scanner) while(ok func(rune) bool) string {
	n := strings.IndexFunc(s.rest, func(c rune) bool { return !ok(c) })
	if n < 0 {
		n = len(s.rest)
	}
	word := s.rest[:n]
	s.rest = s.rest[n:]
	return word
}

func (s *scanner) quoted() (string, error) {
	q, err := strconv.QuotedPrefix(s.rest)
	if err != nil || q[0] != '"' {
		return "", fmt.Errorf("%q: wanted a quoted string", s.rest)
	}
	s.rest = s.rest[len(q):]
	return strconv.Unquote(q)
}

// bare reads an ID or a name, quoted or not.
func (s *scanner) bare() (string, error) {
	if strings.HasPrefix(s.rest, `"`) {
		return s.quoted()
	}
	word := s.while(isBare)
	if word == "" {
		return "", fmt.Errorf("%q: wanted an id or a name", s.rest)
	}
	return word, nil
}

func (s *scanner) ref() (Ref, error) {
	db := s.while(isWordRune)
	if d, name, ok := strings.Cut(db, ":"); !ok || d == "" || name == "" || strings.Contains(name, ":") || !s.take("(") {
		return Ref{}, fmt.Errorf("%q: wanted DB:Table(id)", db+s.rest)
	}
	id, err := s.bare()
	if err != nil {
		return Ref{}, err
	}
	if !s.take(")") {
		return Ref{}, fmt.Errorf("%q: wanted ) after the id", s.rest)
	}
	return Ref{Table(db), id}, nil
}

// place reads a reference and a column: NB:Logical_Switch(node1).ports.
func (s *scanner) place() (Ref, string, error) {
	ref, err := s.ref()
	if err != nil {
		return ref, "", err
	}
	if !s.take(".") {
		return ref, "", fmt.Errorf("%q: wanted .column", s.rest)
	}
	column, err := s.name()
	return ref, column, err
}

// name reads a column's name.
func (s *scanner) name() (string, error) {
	name := s.while(func(c rune) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' })
	if name == "" || (s.rest != "" && s.rest[0] != ' ' && s.rest[0] != '\t') {
		return "", fmt.Errorf("%q: wanted a column", name+s.rest)
	}
	return name, nil
}

func (s *scanner) row() (Row, error) {
	ref, err := s.ref()
	r := Row{Ref: ref}
	if err != nil {
		return r, err
	}
	s.blanks()
	if s.take("parent ") {
		s.blanks()
		if r.Parent.Row, r.Parent.Column, err = s.place(); err != nil {
			return r, err
		}
		s.blanks()
	}
	if s.take("uses ") {
		if r, err = s.uses(r); err != nil {
			return r, err
		}
	}
	if s.rest != "" {
		return r, fmt.Errorf("%q after %v: wanted parent, uses or the end of the line", s.rest, ref)
	}
	return r, nil
}

func (s *scanner) uses(r Row) (Row, error) {
	for s.blanks(); s.rest != ""; s.blanks() {
		var n Name
		word := s.while(func(c rune) bool { return isWordRune(c) && c != '/' })
		n.DB = DB(word)
		ok := s.take("/")
		n.Kind = NameKind(s.while(func(c rune) bool { return isWordRune(c) && c != '/' }))
		if !ok || n.DB == "" || n.Kind == "" || !s.take("/") {
			return r, fmt.Errorf("%q: wanted DB/kind/name", s.rest)
		}
		var err error
		if n.Name, err = s.bare(); err != nil {
			return r, err
		}
		r = r.Using(n)
	}
	return r, nil
}

func (s *scanner) column(r *Row) error {
	name, err := s.name()
	if err != nil {
		return err
	}
	v, err := s.value()
	if err != nil {
		return fmt.Errorf("column %s: %w", name, err)
	}
	i, found := slices.BinarySearchFunc(r.Columns, name, func(c Column, n string) int { return strings.Compare(c.Name, n) })
	if found {
		return fmt.Errorf("column %s is there twice", name)
	}
	r.Columns = slices.Insert(r.Columns, i, Column{name, v})
	return nil
}

func (s *scanner) edge() (Edge, error) {
	s.take("edge ")
	s.blanks()
	row, column, err := s.place()
	if err != nil {
		return Edge{}, err
	}
	v, err := s.value()
	if err == nil && len(v) != 1 {
		err = fmt.Errorf("%d elements, wanted one", len(v))
	}
	if err != nil {
		return Edge{}, err
	}
	return Edge{Row: row, Column: column, Key: v[0].Key, Value: v[0].Value}, nil
}

// value reads elements or entries to the end of the line.
func (s *scanner) value() (Value, error) {
	var v Value
	for s.blanks(); s.rest != ""; s.blanks() {
		var p Pair
		key, err := s.atom()
		if err != nil {
			return nil, err
		}
		p.Key = key
		if s.take("=") {
			if p.Value, err = s.atom(); err != nil {
				return nil, err
			}
		}
		if p.Value.Kind == None && key.Kind == String && key.Ref.Table == unquoted {
			return nil, fmt.Errorf("%q: wanted a quoted string, a number, true, false or a reference", key.Str)
		}
		p.Key.Ref = cleared(p.Key)
		p.Value.Ref = cleared(p.Value)
		v = append(v, p)
		if s.rest != "" && s.rest[0] != ' ' && s.rest[0] != '\t' {
			return nil, fmt.Errorf("%q: wanted a blank", s.rest)
		}
	}
	n := len(v)
	if v = v.canonical(); len(v) != n {
		return nil, errors.New("an element is there twice")
	}
	return v, nil
}

// unquoted marks an atom that was a bare word, which only a map's key may be.
const unquoted Table = "unquoted"

func cleared(a Atom) Ref {
	if a.Kind == String {
		return Ref{}
	}
	return a.Ref
}

func (s *scanner) atom() (Atom, error) {
	if strings.HasPrefix(s.rest, `"`) {
		str, err := s.quoted()
		return S(str), err
	}
	before := s.rest
	word := s.while(isWordRune)
	if strings.HasPrefix(s.rest, "(") {
		s.rest = before
		ref, err := s.ref()
		return R(ref), err
	}
	if word == "true" || word == "false" {
		return B(word == "true"), nil
	}
	if n, err := strconv.ParseInt(word, 10, 64); err == nil {
		return I(n), nil
	}
	if isWord(word) && strings.HasPrefix(s.rest, "=") {
		return Atom{Kind: String, Str: word, Ref: Ref{Table: unquoted}}, nil
	}
	return Atom{}, fmt.Errorf("%q: wanted a quoted string, a number, true, false or a reference", before)
}
