package tour

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// width of titles and sentences, in columns. Commands' output is left as it is.
const width = 100

// style is an ANSI attribute.
type style string

const (
	bold   style = "1"
	dim    style = "2"
	green  style = "32"
	red    style = "1;31"
	strong style = "1;36"
)

// printer writes the tour; every claim goes through it and is counted.
type printer struct {
	out    io.Writer
	colour bool
	tally  tally
	parts  int // titles so far
}

func (p *printer) paint(s style, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// title begins a part, and says what it shows and why that matters.
func (p *printer) title(name, why string) {
	p.parts++
	head := fmt.Sprintf("── %d. %s ", p.parts, name)
	head += strings.Repeat("─", max(2, width-utf8.RuneCountInString(head)))
	fmt.Fprintf(p.out, "\n%s\n%s\n", p.paint(strong, head), p.paint(dim, wrap(why, width)))
}

// note says what the next lines are.
func (p *printer) note(text string) { fmt.Fprintf(p.out, "\n%s\n", p.paint(dim, wrap(text, width))) }

// command prints a command as it is typed, before it runs.
func (p *printer) command(line string) { fmt.Fprintf(p.out, "\n%s\n", p.paint(bold, "$ "+line)) }

// output prints what a command has printed.
func (p *printer) output(text string) {
	if text = strings.Trim(text, "\n"); text != "" {
		fmt.Fprintln(p.out, text)
	}
}

// claim prints one claim and counts it.
func (p *printer) claim(c claim) {
	p.tally.add(c)
	fmt.Fprintf(p.out, "  %s %s\n", p.mark(c), c)
}

func (p *printer) mark(c claim) string {
	if c.holds() {
		return p.paint(green, "✓")
	}
	return p.paint(red, "✗")
}

// gap is an empty line.
func (p *printer) gap() { fmt.Fprintln(p.out) }

// grid prints a claim for each pair of a row and a column: what was found, with
// its mark. Those that do not hold are said in full below.
func (p *printer) grid(g grid) {
	p.gap()
	first := utf8.RuneCountInString(g.corner)
	for _, r := range g.rows {
		first = max(first, utf8.RuneCountInString(r.name))
	}
	columns := make([]int, len(g.columns))
	for i, c := range g.columns {
		columns[i] = utf8.RuneCountInString(c)
		for _, r := range g.rows {
			columns[i] = max(columns[i], utf8.RuneCountInString(r.cells[i].short())+2)
		}
	}
	line := pad(g.corner, first)
	for i, c := range g.columns {
		line += "  " + pad(c, columns[i])
	}
	fmt.Fprintf(p.out, "  %s\n", p.paint(bold, strings.TrimRight(line, " ")))
	var failed []claim
	for _, r := range g.rows {
		line := pad(r.name, first)
		for i, c := range r.cells {
			if c == (claim{}) {
				line += "  " + pad("", columns[i])
				continue
			}
			line += "  " + p.mark(c) + " " + pad(c.short(), columns[i]-2)
			if p.tally.add(c); !c.holds() {
				failed = append(failed, c)
			}
		}
		fmt.Fprintf(p.out, "  %s\n", strings.TrimRight(line, " "))
	}
	for _, c := range failed {
		fmt.Fprintf(p.out, "  %s %s\n", p.mark(c), c)
	}
}

// grid is a table of claims.
type grid struct {
	corner  string
	columns []string
	rows    []row
}

// row has one claim for each column of its grid; an empty one where nothing is asked.
type row struct {
	name  string
	cells []claim
}

// short is what a cell of a grid has room for.
func (c claim) short() string {
	if c.err != nil {
		return "error"
	}
	return c.got
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) }

// wrap breaks a sentence at spaces into lines of at most n columns.
func wrap(text string, n int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		l := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+l > n:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += l
	}
	return b.String()
}
