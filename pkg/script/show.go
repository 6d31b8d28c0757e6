package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Rows is the text of all rows and edges that units want, of the tables named;
// none: all.
func (s *Shell) Rows(tables ...string) string {
	var b strings.Builder
	for _, name := range s.names() {
		rs, es := s.engine.Desired(name)
		b.WriteString(rows.Format(filter(rs, es, tables)))
	}
	return b.String()
}

// filter keeps what is in the tables named: with the database ("NB:ACL") or
// without ("ACL").
func filter(rs []rows.Row, es []rows.Edge, tables []string) ([]rows.Row, []rows.Edge) {
	if len(tables) == 0 {
		return rs, es
	}
	in := func(t rows.Table) bool {
		return slices.Contains(tables, string(t)) || slices.Contains(tables, t.Name())
	}
	rs = slices.DeleteFunc(slices.Clone(rs), func(r rows.Row) bool { return !in(r.Table) })
	es = slices.DeleteFunc(slices.Clone(es), func(e rows.Edge) bool { return !in(e.Row.Table) })
	return rs, es
}

// Held is what the databases hold of ours, elements of shared columns folded
// into their rows; of a singleton, only what it holds of ours cannot be told,
// so it is left out.
func (s *Shell) Held(tables ...string) (string, error) {
	var b strings.Builder
	for _, d := range s.cfg.Databases {
		snap, err := d.Snapshot()
		if err != nil {
			return "", err
		}
		b.WriteString(rows.Format(filter(HeldRows(snap), nil, tables)))
	}
	return b.String(), nil
}

// HeldRows are a snapshot's rows of ours as rows.
func HeldRows(snap engine.Snapshot) []rows.Row {
	var rs []rows.Row
	for _, a := range snap.Rows {
		if a.ID != rows.Singleton {
			rs = append(rs, rows.Row{Ref: a.Ref, Parent: a.Parent, Columns: a.Columns})
		}
	}
	return rs
}

func (r *runner) rows(args []string) (string, error) { return r.shell.Rows(args...), nil }

func (r *runner) edges(args []string) (string, error) {
	var b strings.Builder
	for _, name := range r.shell.names() {
		rs, es := r.shell.engine.Desired(name)
		_, es = filter(rs, es, args)
		b.WriteString(rows.Format(nil, es))
	}
	return b.String(), nil
}

func (r *runner) held(args []string) (string, error) { return r.shell.Held(args...) }

// other is a database that can tell what is not ours, be written to by others,
// and be damaged.
type other interface {
	Others() string
	Foreign([]rows.Row, []rows.Edge) error
	Vandalize(rows.Ref) error
}

// Open reports whether the databases let a shell read and write what is not ours.
func (s *Shell) Open() bool {
	return !slices.ContainsFunc(s.cfg.Databases, func(d Database) bool {
		_, ok := d.(other)
		return !ok
	})
}

func (s *Shell) other(name rows.DB) (other, error) {
	d, err := s.database(name)
	if err != nil {
		return nil, err
	}
	if o, ok := d.(other); ok {
		return o, nil
	}
	return nil, fmt.Errorf("database %s: rows of others cannot be written or read here", name)
}

// Others is the text of what is not ours in all databases that can tell.
func (s *Shell) Others() string {
	var b strings.Builder
	for _, d := range s.cfg.Databases {
		if o, ok := d.(other); ok {
			b.WriteString(o.Others())
		}
	}
	return b.String()
}

func (r *runner) others([]string) (string, error) { return r.shell.Others(), nil }

func (r *runner) foreign(args []string) (string, error) {
	data, err := r.file(args[0])
	if err != nil {
		return "", err
	}
	return "", r.shell.Foreign(string(data))
}

// Foreign writes rows of one database as somebody else would.
func (s *Shell) Foreign(text string) error {
	rs, es, err := rows.Parse(text)
	if err != nil {
		return err
	}
	if len(rs) == 0 && len(es) == 0 {
		return errors.New("no rows")
	}
	table := rows.Table("")
	if len(rs) > 0 {
		table = rs[0].Table
	} else {
		table = es[0].Row.Table
	}
	o, err := s.other(table.DB())
	if err != nil {
		return err
	}
	return o.Foreign(rs, es)
}

func (r *runner) vandalize(args []string) (string, error) {
	rs, _, err := rows.Parse(args[0])
	if err != nil || len(rs) != 1 {
		return "", fmt.Errorf("%q: wanted DB:Table(id)", args[0])
	}
	o, err := r.shell.other(rs[0].Table.DB())
	if err != nil {
		return "", err
	}
	return "", o.Vandalize(rs[0].Ref)
}

func (r *runner) opsVerb([]string) (string, error) {
	var b strings.Builder
	for _, t := range r.shell.ops {
		b.WriteString(t.String())
	}
	return b.String(), nil
}

func (r *runner) explain(args []string) (string, error) {
	kind, key, _ := strings.Cut(args[0], "/")
	return r.shell.Explain(engine.Unit{Kind: kind, Key: key})
}

// Explain is the text of what a unit reads and says.
func (s *Shell) Explain(u engine.Unit) (string, error) {
	x, ok := s.engine.Explain(u)
	if !ok {
		return "", fmt.Errorf("no unit %s", u)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "unit %s\ngroup %s\n", x.Unit, x.Group)
	for _, read := range x.Reads {
		fmt.Fprintf(&b, "reads %s\n", read)
	}
	b.WriteString(rows.Format(x.Rows, x.Edges))
	return b.String(), nil
}

// Problems lists the mistakes found by the door in the last apply, and by units.
func (s *Shell) Problems() []rows.Problem {
	return append(slices.Clone(s.problems), s.engine.Problems()...)
}

func (r *runner) problems([]string) (string, error) {
	var b strings.Builder
	for _, p := range r.shell.Problems() {
		b.WriteString(FormatProblem(p) + "\n")
	}
	return b.String(), nil
}

// FormatProblem is a problem on one line.
func FormatProblem(p rows.Problem) string {
	where := strings.TrimSpace(p.Object + " " + p.Field)
	return fmt.Sprintf("%s: %s: %s", p.Severity, where, p.Message)
}

func (r *runner) waiting([]string) (string, error) {
	var b strings.Builder
	for _, st := range r.shell.engine.Statuses() {
		b.WriteString(st.String() + "\n")
	}
	return b.String(), nil
}

func (r *runner) marks(args []string) (string, error) {
	committed, installed := r.shell.engine.Marks(args[0])
	text := ""
	if committed {
		text += "committed\n"
	}
	if installed {
		text += "installed\n"
	}
	return text, nil
}

func (r *runner) units([]string) (string, error) {
	var b strings.Builder
	for _, u := range r.shell.engine.Units() {
		b.WriteString(u.String() + "\n")
	}
	return b.String(), nil
}

func (r *runner) compiles([]string) (string, error) {
	return fmt.Sprintf("%d\n", r.shell.engine.Stats().Compiles-r.shell.compiles), nil
}
