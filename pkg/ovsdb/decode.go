package ovsdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// decodeValue reads a column as ovsdb-server prints it (RFC 7047 §5.1): an atom,
// ["set", [...]] or ["map", [...]]. A reference is left as its UUID, in
// Ref.ID with the table that the schema says: resolve turns it into a Ref.
func decodeValue(raw json.RawMessage, c rows.ColumnSchema) (rows.Value, error) {
	var tagged []json.RawMessage
	if len(raw) == 0 {
		return nil, fmt.Errorf("column %q: no value", c.Name)
	}
	if raw[0] != '[' {
		a, err := decodeAtom(raw, c.Key, c.RefTable)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", c.Name, err)
		}
		return checkedValue(c, rows.Value{{Key: a}})
	}
	if err := json.Unmarshal(raw, &tagged); err != nil {
		return nil, fmt.Errorf("column %q: %w", c.Name, err)
	}
	if len(tagged) != 2 {
		return nil, fmt.Errorf("column %q: %d elements, wanted a tag and a value", c.Name, len(tagged))
	}
	var v rows.Value
	var err error
	switch string(tagged[0]) {
	case `"uuid"`:
		var a rows.Atom
		a, err = decodeAtom(raw, c.Key, c.RefTable)
		v = rows.Value{{Key: a}}
	case `"set"`:
		v, err = decodeSet(tagged[1], c)
	case `"map"`:
		v, err = decodeMap(tagged[1], c)
	default:
		err = fmt.Errorf("tag %s, wanted set, map or uuid", tagged[0])
	}
	if err != nil {
		return nil, fmt.Errorf("column %q: %w", c.Name, err)
	}
	return checkedValue(c, v)
}

func checkedValue(c rows.ColumnSchema, v rows.Value) (rows.Value, error) {
	if err := c.Fits(v); err != nil {
		return nil, fmt.Errorf("column %q: %w", c.Name, err)
	}
	return v, nil
}

func decodeSet(raw json.RawMessage, c rows.ColumnSchema) (rows.Value, error) {
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return nil, err
	}
	atoms := make([]rows.Atom, 0, len(elements))
	for _, e := range elements {
		a, err := decodeAtom(e, c.Key, c.RefTable)
		if err != nil {
			return nil, err
		}
		atoms = append(atoms, a)
	}
	return rows.Set(atoms...), nil
}

func decodeMap(raw json.RawMessage, c rows.ColumnSchema) (rows.Value, error) {
	var entries [][]json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, err
	}
	v := make(rows.Value, 0, len(entries))
	for _, e := range entries {
		if len(e) != 2 {
			return nil, fmt.Errorf("map entry with %d elements", len(e))
		}
		key, err := decodeAtom(e[0], c.Key, c.RefTable)
		if err != nil {
			return nil, err
		}
		value, err := decodeAtom(e[1], c.Value, c.ValueRefTable)
		if err != nil {
			return nil, err
		}
		v = append(v, rows.Pair{Key: key, Value: value})
	}
	slices.SortFunc(v, func(a, b rows.Pair) int { return a.Key.Compare(b.Key) })
	return v, nil
}

func decodeAtom(raw json.RawMessage, kind rows.Kind, ref rows.Table) (rows.Atom, error) {
	raw = bytes.TrimSpace(raw)
	var err error
	switch kind {
	case rows.String:
		var s *string
		if err = json.Unmarshal(raw, &s); err == nil && s != nil {
			return rows.S(*s), nil
		}
	case rows.Int:
		var n *int64
		if err = json.Unmarshal(raw, &n); err == nil && n != nil {
			return rows.I(*n), nil
		}
	case rows.Bool:
		var b *bool
		if err = json.Unmarshal(raw, &b); err == nil && b != nil {
			return rows.B(*b), nil
		}
	case rows.Reference:
		var pair []string
		if err = json.Unmarshal(raw, &pair); err == nil && len(pair) == 2 && pair[0] == "uuid" {
			return rows.R(rows.Ref{Table: ref, ID: pair[1]}), nil
		}
	}
	return rows.Atom{}, fmt.Errorf("%.40s found, wanted %v", raw, kind)
}
