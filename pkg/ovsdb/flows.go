package ovsdb

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// FlowID names a logical flow as ovn-trace prints it.
type FlowID struct {
	Pipeline string // ingress, egress
	Table    int
	Priority int
	UUID     string // the first digits of the row's
}

// StageHints reads, for each of the flows, the first digits of the UUID of the
// northbound row that ovn-northd made it from (SB Logical_Flow, external_ids
// stage-hint). Flows that northd makes of nothing in particular, and those that are
// gone, are left out. The connection must be to a southbound database.
func (c *Conn) StageHints(ctx context.Context, flows []FlowID) (map[FlowID]string, error) {
	r, _, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	params := []any{databaseName(c.cfg.DB)}
	for _, f := range flows {
		params = append(params, operation{
			Op: "select", Table: "Logical_Flow", Columns: []string{"_uuid", "external_ids"},
			Where: &[]condition{{"pipeline", "==", f.Pipeline}, {"table_id", "==", f.Table}, {"priority", "==", f.Priority}},
		})
	}
	var results []result
	if err := r.call(ctx, "transact", params, &results); err != nil {
		return nil, err
	}
	hints := map[FlowID]string{}
	for i, f := range flows {
		if i >= len(results) || results[i].Error != "" {
			return nil, fmt.Errorf("read Logical_Flow: %s", results[len(results)-1])
		}
		for _, row := range results[i].Rows {
			if hint := stageHint(row, f.UUID); hint != "" {
				hints[f] = hint
			}
		}
	}
	return hints, nil
}

// stageHint is a row's hint if its UUID begins so.
func stageHint(row map[string]json.RawMessage, uuid string) string {
	var id [2]string
	if json.Unmarshal(row["_uuid"], &id) != nil || !strings.HasPrefix(id[1], uuid) {
		return ""
	}
	var ids [2]json.RawMessage
	var pairs [][2]string
	if json.Unmarshal(row["external_ids"], &ids) != nil || json.Unmarshal(ids[1], &pairs) != nil {
		return ""
	}
	for _, p := range pairs {
		if p[0] == "stage-hint" {
			return p[1]
		}
	}
	return ""
}
