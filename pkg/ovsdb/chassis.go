package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// Chassis is one machine as its ovn-controller has registered it in SB. The row is
// ovn-controller's, not the engine's.
type Chassis struct {
	Name     string // system-id
	Hostname string // the Node object's name
}

// Chassis lists the machines that are registered in the southbound database.
func (c *Conn) Chassis(ctx context.Context) ([]Chassis, error) {
	op := operation{Op: "select", Table: "Chassis", Where: everyRow(), Columns: []string{"name", "hostname"}}
	results, err := c.ask(ctx, op)
	if err != nil {
		return nil, err
	}
	var out []Chassis
	for _, row := range results[0].Rows {
		var one Chassis
		if err := errors.Join(json.Unmarshal(row["name"], &one.Name), json.Unmarshal(row["hostname"], &one.Hostname)); err != nil {
			return nil, fmt.Errorf("chassis: %w", err)
		}
		out = append(out, one)
	}
	return out, nil
}

// RemoveChassis removes a machine and what goes with it: its tunnel addresses, and
// the hold it has on ports. It is no error if there is none of that name.
func (c *Conn) RemoveChassis(ctx context.Context, name string) error {
	where := &[]condition{{"name", "==", name}}
	_, err := c.ask(ctx, operation{Op: "delete", Table: "Chassis_Private", Where: where}, operation{Op: "delete", Table: "Chassis", Where: where})
	return err
}

// ask sends operations of our own, and returns one result for each.
func (c *Conn) ask(ctx context.Context, ops ...operation) ([]result, error) {
	if c.cfg.DB != rows.SB {
		return nil, fmt.Errorf("%s has no chassis: ask %s", databaseName(c.cfg.DB), databaseName(rows.SB))
	}
	r, _, err := c.session(ctx)
	if err != nil {
		return nil, err
	}
	params := []any{databaseName(c.cfg.DB)}
	for _, op := range ops {
		params = append(params, op)
	}
	var results []result
	if err := r.call(ctx, "transact", params, &results); err != nil {
		return nil, err
	}
	if text := errorOf(results); text != "" || len(results) < len(ops) {
		return nil, fmt.Errorf("%s: %d results of %d: %s", databaseName(c.cfg.DB), len(results), len(ops), text)
	}
	return results, nil
}
