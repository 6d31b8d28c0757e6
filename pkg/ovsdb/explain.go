package ovsdb

import (
	"cmp"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// String is the error as the server says it.
func (r refusal) String() string {
	if r.details == "" {
		return r.code
	}
	return r.code + ": " + r.details
}

// class tells errors that the content causes from those of circumstances.
func (r refusal) class() engine.Class {
	switch r.code {
	case "not owner", "timed out", "resources exhausted", "I/O error", "aborted", "canceled", "cluster error", "not leader", "raft error":
		return engine.IO
	}
	return engine.Constraint
}

// explain names, in the server's message about one group, the rows behind the
// UUIDs: ours by their refs, others' by reading them. It adds the rows that the
// group writes to the table that the message is about.
func (c *Conn) explain(ctx context.Context, r *rpc, g engine.GroupOps, why refusal) string {
	uuids := regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	ours := named(g)
	tables := tablesIn(c.cfg.DB, why.details)
	text := uuids.ReplaceAllStringFunc(why.String(), func(id string) string {
		if ref, ok := ours[id]; ok {
			return ref.String()
		}
		if found := c.describe(ctx, r, id, tables); found != "" {
			return found
		}
		return id
	})
	if uuids.MatchString(why.details) {
		return text
	}
	var writes []string
	for _, op := range g.Ops {
		ref := cmp.Or(op.Row.Ref, op.Edge.Row)
		if len(tables) == 0 || slices.Contains(tables, ref.Table) {
			writes = append(writes, ref.String())
		}
	}
	slices.Sort(writes)
	writes = slices.Compact(writes)
	if n := len(writes); n > 3 {
		writes = append(writes[:3], "…")
	}
	return strings.Join(writes, ", ") + ": " + text
}

// named maps UUIDs to the refs that a group's operations speak of.
func named(g engine.GroupOps) map[string]rows.Ref {
	out := map[string]rows.Ref{}
	add := func(ref rows.Ref) {
		if !ref.IsZero() {
			out[uuidOf(ref)] = ref
		}
	}
	for _, op := range g.Ops {
		add(op.Row.Ref)
		add(op.Row.Parent.Row)
		add(op.Edge.Row)
		add(op.Edge.Key.Ref)
		for _, col := range op.Row.Columns {
			for _, p := range col.Value {
				add(p.Key.Ref)
				add(p.Value.Ref)
			}
		}
	}
	return out
}

// tablesIn lists the tables that a message names.
func tablesIn(db rows.DB, text string) []rows.Table {
	var out []rows.Table
	for _, t := range rows.Tables(db) {
		if regexp.MustCompile(`\b` + regexp.QuoteMeta(t.Name()) + `\b`).MatchString(text) {
			out = append(out, t)
		}
	}
	return out
}

// describe reads a row that is not in the group: its ref if it is ours, else
// what tells it from others. "" if it cannot be found.
func (c *Conn) describe(ctx context.Context, r *rpc, id string, tables []rows.Table) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, t := range tables {
		op := selectAll(t)
		op.Where = rowWithUUID(id)
		var reply json.RawMessage
		if err := r.call(ctx, "transact", []any{databaseName(c.cfg.DB), op}, &reply); err != nil {
			return ""
		}
		rd := newReader(c.cfg.DB)
		if err := rd.results(reply, []rows.Table{t}); err != nil {
			return ""
		}
		if len(rd.found) != 1 {
			continue
		}
		if ref, ours := rd.name(rd.found[0]); ours {
			return ref.String()
		}
		return rd.found[0].String()
	}
	return ""
}
