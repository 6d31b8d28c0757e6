package ovsdb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// foundRow is a row on its way from select to ActualRow.
type foundRow struct {
	table rows.Table
	uuid  string
	tags  tags
	cols  []rows.Column // references hold UUIDs
	ref   rows.Ref
	ours  bool
}

type tags struct{ owner, id, zone string }

// reader turns the tables of one database into a Snapshot.
type reader struct {
	db     rows.DB
	found  []*foundRow
	byUUID map[string]*foundRow
	parent map[string]rows.Parent // UUID of a child -> its parent

	nbCfg, hvCfg int64 // NB's
}

func newReader(db rows.DB) *reader {
	return &reader{db: db, byUUID: map[string]*foundRow{}, parent: map[string]rows.Parent{}}
}

// results decodes what the selections of tables have returned.
func (r *reader) results(reply []byte, tables []rows.Table) error {
	d := &decoder{jsonText: jsonText{b: reply}}
	read, failed := 0, ""
	err := d.list(func() error {
		if d.peek() != '{' {
			return d.skip() // what comes after an error is null
		}
		read++
		return d.object(func(key []byte) error {
			switch {
			case string(key) == "rows" && read <= len(tables):
				if err := r.table(d, tables[read-1]); err != nil {
					return fmt.Errorf("%s: %w", tables[read-1], err)
				}
				return nil
			case string(key) == "error" || string(key) == "details":
				s, err := d.str()
				failed = strings.TrimPrefix(failed+": "+string(s), ": ")
				return err
			}
			return d.skip()
		})
	})
	switch {
	case err != nil:
		return fmt.Errorf("read %w", err)
	case failed != "":
		return fmt.Errorf("read %s: %s", databaseName(r.db), failed)
	case read < len(tables):
		return fmt.Errorf("read %s: no answer", tables[read])
	}
	return nil
}

// table decodes a list of rows.
func (r *reader) table(d *decoder, t rows.Table) error {
	schema, _ := rows.SchemaOf(t)
	seen := make([]bool, len(schema.Columns))
	return d.list(func() error {
		clear(seen)
		return r.row(d, t, schema, seen)
	})
}

// row decodes one row; seen is for its use.
func (r *reader) row(d *decoder, t rows.Table, schema rows.TableSchema, seen []bool) error {
	f := &foundRow{table: t}
	err := d.object(func(key []byte) error {
		i, ok := slices.BinarySearchFunc(schema.Columns, key, func(c rows.ColumnSchema, k []byte) int {
			return strings.Compare(c.Name, string(k))
		})
		if ok {
			seen[i] = true
			return r.column(d, f, schema.Columns[i])
		}
		var err error
		switch {
		case string(key) == "_uuid":
			if f.uuid, ok = d.uuid(); !ok {
				return fmt.Errorf("_uuid: %.40s found, wanted a uuid", d.b[d.at:])
			}
		case t == singleton(rows.NB) && string(key) == "nb_cfg":
			r.nbCfg, err = d.integer()
		case t == singleton(rows.NB) && string(key) == "hv_cfg":
			r.hvCfg, err = d.integer()
		default:
			err = d.skip()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("row %s: %w", f.uuid, err)
	}
	if f.uuid == "" {
		return fmt.Errorf("a row without _uuid")
	}
	if i := slices.Index(seen, false); i >= 0 {
		return fmt.Errorf("row %s: column %q: no value", f.uuid, schema.Columns[i].Name)
	}
	slices.SortFunc(f.cols, func(a, b rows.Column) int { return strings.Compare(a.Name, b.Name) })
	r.found = append(r.found, f)
	r.byUUID[f.uuid] = f
	return nil
}

// column keeps a value that is not the column's default, without our tags.
func (r *reader) column(d *decoder, f *foundRow, c rows.ColumnSchema) error {
	v, err := d.column(c)
	if err != nil {
		return err
	}
	if c.Name == "external_ids" {
		v = f.tags.take(v)
	}
	if !c.IsDefault(v) {
		f.cols = append(f.cols, rows.Column{Name: c.Name, Value: slices.Clone(v)})
	}
	return nil
}
