package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// output is how a command prints what it found: a table for people, or the whole
// value, in the fields of its type, for programs.
type output struct {
	format string // "", "json" or "yaml"
}

func (o *output) addFlag(f *pflag.FlagSet) {
	f.StringVarP(&o.format, "output", "o", "", "`format`: json or yaml; default: for people")
}

// print writes v as asked; people, the text for them, is only called for them.
func (o output) print(w io.Writer, v any, people func(io.Writer)) error {
	switch o.format {
	case "":
		people(w)
		return nil
	case "json":
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", text)
		return err
	case "yaml":
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return fmt.Errorf("-o %s: wanted json or yaml", o.format)
}

// table is text in columns as wide as their widest cell.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table, without spaces at line ends; nothing when it has no rows.
func (t table) write(w io.Writer) {
	if len(t.rows) == 0 {
		return
	}
	widths := make([]int, len(t.head))
	all := append([][]string{t.head}, t.rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// dash stands for nothing in a table.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
