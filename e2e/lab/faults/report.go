package faults

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// Report writes the table's head to a file that has none yet, and one line for each
// result: what `make test` prints at its end. A file named "" is none.
func Report(file string, results ...Result) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		head(f)
	}
	for _, r := range results {
		line(f, r)
	}
	return f.Close()
}

// The columns of the table.
var columns = []struct {
	title string
	width int
}{
	{"fault (1,000 packets/s on each path)", 44}, {"same node", 10}, {"other node", 11}, {"outside", 8}, {"bare bridge", 12}, {"longest gap", 12}, {"rows different", 15}, {"well after", 10},
}

func head(w io.Writer) {
	row := make([]string, 0, len(columns))
	for _, c := range columns {
		row = append(row, c.title)
	}
	fmt.Fprintln(w, cells(row))
}

// line is one result. A path that the run did not have is a dash.
func line(w io.Writer, r Result) {
	lost := func(path string) string {
		for _, f := range r.Flows {
			if f.Path == path {
				return fmt.Sprint(f.Lost)
			}
		}
		return "–"
	}
	rows := fmt.Sprint(r.Different())
	if r.Rows == nil {
		rows = "–"
	}
	fmt.Fprintln(w, cells([]string{r.Fault.Name, lost(SameNode), lost(OtherNode), lost(Outside), fmt.Sprint(r.Bare.Lost),
		r.gap().Round(time.Millisecond).String(), rows, r.Took.Round(100 * time.Millisecond).String()}))
}

// cells pads a row's cells; what is too long pushes the rest.
func cells(row []string) string {
	var b strings.Builder
	for i, c := range row {
		b.WriteString(c)
		if pad := columns[i].width - utf8.RuneCountInString(c); i+1 < len(row) {
			b.WriteString(strings.Repeat(" ", max(pad, 1)))
		}
	}
	return b.String()
}
