package ovsdb

import (
	"context"
	"fmt"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// NbCfg reads how far a database has come: the northbound database's nb_cfg is
// what was asked for last, the southbound's what northd has carried out, in the
// transaction that carried it out. -1 says that the database is empty: northd, or
// the first writer, has not been there. It waits for the connection.
func (c *Conn) NbCfg(ctx context.Context) (int64, error) {
	table := map[rows.DB]string{rows.NB: "NB_Global", rows.SB: "SB_Global"}[c.cfg.DB]
	if table == "" {
		return 0, fmt.Errorf("%s has no nb_cfg", databaseName(c.cfg.DB))
	}
	r, _, err := c.session(ctx)
	if err != nil {
		return 0, err
	}
	var results []result
	op := operation{Op: "select", Table: table, Where: everyRow(), Columns: []string{"nb_cfg"}}
	if err := r.call(ctx, "transact", []any{databaseName(c.cfg.DB), op}, &results); err != nil {
		return 0, fmt.Errorf("read %s: %w", table, err)
	}
	if len(results) != 1 || len(results[0].Rows) == 0 {
		return -1, nil
	}
	return number(results[0].Rows[0]["nb_cfg"]), nil
}
