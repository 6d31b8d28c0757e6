package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// The identifiers of our monitors.
const (
	monitorRows   = "rows"
	monitorServer = "server"
)

// monitorRequest asks for one table's changes (RFC 7047 §4.1.5).
type monitorRequest struct {
	Columns []string      `json:"columns"`
	Select  monitorSelect `json:"select"`
}

type monitorSelect struct {
	Initial bool `json:"initial"`
	Insert  bool `json:"insert"`
	Delete  bool `json:"delete"`
	Modify  bool `json:"modify"`
}

// rowUpdate is a row before and after a change, in the columns asked for.
type rowUpdate struct {
	Old map[string]json.RawMessage `json:"old"`
	New map[string]json.RawMessage `json:"new"`
}

type tableUpdates map[string]map[string]rowUpdate

// watch subscribes to what steady state needs: NB_Global's hv_cfg, and the
// deletion of tagged rows. Nothing else is sent, so a pod costs no update.
func (c *Conn) watch(ctx context.Context, r *rpc) error {
	requests := map[string]monitorRequest{}
	for _, t := range rows.Tables(c.cfg.DB) {
		if s, _ := rows.SchemaOf(t); s.ExternalIDs && t != singleton(c.cfg.DB) {
			requests[t.Name()] = monitorRequest{[]string{"external_ids"}, monitorSelect{Delete: true}}
		}
	}
	if c.cfg.DB == rows.NB {
		requests["NB_Global"] = monitorRequest{[]string{"hv_cfg"}, monitorSelect{Initial: true, Insert: true, Modify: true}}
	}
	var initial tableUpdates
	if err := r.call(ctx, "monitor", []any{databaseName(c.cfg.DB), monitorRows, requests}, &initial); err != nil {
		return err
	}
	c.take(initial)
	return nil
}

// leader makes sure that the server may answer for a clustered database: reads
// from a follower may be old, and a Snapshot must not be. It watches before it
// looks, so that a change between the two is not missed.
func (c *Conn) leader(ctx context.Context, r *rpc, endpoint string) error {
	name := databaseName(c.cfg.DB)
	request := map[string]monitorRequest{"Database": {[]string{"name", "leader"}, monitorSelect{Modify: true}}}
	if err := r.call(ctx, "monitor", []any{"_Server", monitorServer, request}, nil); err != nil {
		return err
	}
	op := operation{
		Op: "select", Table: "Database", Columns: []string{"model", "leader"},
		Where: &[]condition{{"name", "==", name}},
	}
	var results []result
	if err := r.call(ctx, "transact", []any{"_Server", op}, &results); err != nil {
		return err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return fmt.Errorf("%s at %s: the server has no such database", name, endpoint)
	}
	row := results[0].Rows[0]
	if string(row["model"]) == `"clustered"` && string(row["leader"]) != "true" {
		return fmt.Errorf("%s at %s: not the leader of the cluster", name, endpoint)
	}
	return nil
}

// notified handles the server's notifications, on the reading goroutine.
func (c *Conn) notified(r *rpc, method string, params json.RawMessage) {
	switch method {
	case "update":
		var id string
		var updates tableUpdates
		pair := []any{&id, &updates}
		if err := json.Unmarshal(params, &pair); err != nil {
			r.close(fmt.Errorf("update: %w", err))
			return
		}
		if id == monitorServer {
			c.followed(r, updates)
			return
		}
		c.take(updates)
	case "locked":
		c.up(r)
	case "stolen":
		r.close(errors.New("another client has stolen the lock " + LockName))
	}
}

// followed leaves a server that has ceased to be the leader.
func (c *Conn) followed(r *rpc, updates tableUpdates) {
	for _, u := range updates["Database"] {
		if string(u.New["leader"]) == "false" && strings.Trim(string(u.New["name"]), `"`) == databaseName(c.cfg.DB) {
			r.close(errors.New("the server is no longer the leader of the cluster"))
		}
	}
}

// take reads updates of the database itself.
func (c *Conn) take(updates tableUpdates) {
	for _, u := range updates["NB_Global"] {
		if raw, ok := u.New["hv_cfg"]; ok {
			c.installed(number(raw))
		}
	}
	gone, left := false, false
	for table, changes := range updates {
		for _, u := range changes {
			if len(u.New) == 0 {
				ours := c.tagged(table, u.Old)
				gone, left = gone || ours, left || !ours
			}
		}
	}
	c.mu.Lock()
	// The server sends updates before the reply of the transaction that caused
	// them, so one that comes while nothing of ours is under way is foreign.
	foreign := gone && !c.writing
	c.mu.Unlock()
	if foreign || left {
		c.update(func() {
			if foreign {
				c.state.Drift++
			}
			if left {
				c.state.Left++
			}
		})
	}
}

// tagged reports whether a row that is gone carried our tags.
func (c *Conn) tagged(table string, old map[string]json.RawMessage) bool {
	schema, _ := rows.SchemaOf(rows.Table(string(c.cfg.DB) + ":" + table))
	col, ok := schema.Column("external_ids")
	if !ok {
		return false
	}
	v, err := decodeValue(old["external_ids"], col)
	if err != nil {
		return false
	}
	var t tags
	t.take(v)
	return t.owner != "" && !strings.HasPrefix(t.owner, attachments) && (c.cfg.DB == rows.OVS || t.zone == c.cfg.Zone)
}

func (c *Conn) installed(hvCfg int64) {
	c.mu.Lock()
	same := c.state.HvCfg == hvCfg
	c.mu.Unlock()
	if !same {
		c.update(func() { c.state.HvCfg = hvCfg })
	}
}
