package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// row is one thing that was looked at.
type row struct {
	what, found string
	ok          bool
}

// table is what the run says.
type table struct{ rows []row }

// add notes what was found; ok: it is as it should be.
func (t *table) add(ok bool, what, format string, args ...any) {
	t.rows = append(t.rows, row{what, fmt.Sprintf(format, args...), ok})
}

func (t *table) failed() bool {
	for _, r := range t.rows {
		if !r.ok {
			return true
		}
	}
	return false
}

func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range t.rows {
		verdict := "ok"
		if !r.ok {
			verdict = "FAILED"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", verdict, r.what, r.found)
	}
	return tw.Flush()
}
