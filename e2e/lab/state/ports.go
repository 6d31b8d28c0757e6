package state

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
)

// Port is a pod's port, as a database of a node's has it.
type Port struct {
	DB    string // NB or SB
	Name  string
	Pod   string // UID
	Addrs []netip.Addr
}

// Ports lists the pods' ports in both databases of OVN's on a node. What answers is
// listed; what does not is in the error.
func Ports(ctx context.Context, name string) ([]Port, error) {
	var out []Port
	var errs []error
	for _, q := range []struct{ db, table, name, addrs string }{
		{"NB", "Logical_Switch_Port", "name", "addresses"},
		{"SB", "Port_Binding", "logical_port", "mac"},
	} {
		path, database, err := socket(name, q.db)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var rows []record
		if err == nil {
			rows, err = readColumns(ctx, path, database, q.table, q.name, q.addrs, "options", "external_ids")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", q.db, name, err))
			continue
		}
		for _, row := range rows {
			if p, ok := podPort(row, q.name, q.addrs); ok {
				p.DB = q.db
				out = append(out, p)
			}
		}
	}
	return out, errors.Join(errs...)
}

// podPort reads a row that is a pod's.
func podPort(row record, name, addrs string) (Port, bool) {
	port, _ := row[name].(string)
	p := Port{Name: port, Pod: lookup(row["options"], "iface-id-ver")}
	for _, text := range texts(row[addrs]) {
		for _, word := range strings.Fields(text) {
			if a, err := netip.ParseAddr(word); err == nil {
				p.Addrs = append(p.Addrs, a)
			}
		}
	}
	return p, lookup(row["external_ids"], "pod") == "true"
}

func lookup(v any, key string) string {
	d, _ := v.(dict)
	i := slices.IndexFunc(d, func(kv [2]any) bool { return kv[0] == key })
	if i < 0 {
		return ""
	}
	text, _ := d[i][1].(string)
	return text
}

// texts are a column's strings: a set of one is written as the one.
func texts(v any) []string {
	if one, ok := v.(string); ok {
		return []string{one}
	}
	var out []string
	many, _ := v.(set)
	for _, e := range many {
		if text, ok := e.(string); ok {
			out = append(out, text)
		}
	}
	return out
}

// readColumns reads some columns of one table.
func readColumns(ctx context.Context, socket, database, table string, columns ...string) ([]record, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	var results []struct {
		Rows  []record `json:"rows"`
		Error string   `json:"error"`
	}
	op := map[string]any{"op": "select", "table": table, "where": []any{}, "columns": columns}
	if err := c.call("transact", []any{database, op}, &results); err != nil {
		return nil, err
	}
	if len(results) != 1 || results[0].Error != "" {
		return nil, fmt.Errorf("%s: table %s not read", database, table)
	}
	for _, row := range results[0].Rows {
		for column, v := range row {
			if row[column], err = convert(v); err != nil {
				return nil, fmt.Errorf("%s: %s.%s: %w", database, table, column, err)
			}
		}
	}
	return results[0].Rows, nil
}
