package ovsdb

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// noCluster is the id that a server says while it is still joining.
const noCluster = "00000000-0000-0000-0000-000000000000"

// ClusterID asks one server for the raft cluster in which it serves cfg.DB. It is
// "" while the server is in none: it serves the database alone, or is joining. The
// server does not have to have the database's content for it.
func ClusterID(ctx context.Context, cfg Config) (string, error) {
	name := databaseName(cfg.DB)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	stream, err := dial(ctx, cfg.Endpoint, cfg.TLS)
	if err != nil {
		return "", err
	}
	r := newRPC(stream, func(string, json.RawMessage) {})
	defer r.close(errClosed)
	op := operation{Op: "select", Table: "Database", Columns: []string{"cid"}, Where: &[]condition{{"name", "==", name}}}
	var results []result
	if err := r.call(ctx, "transact", []any{"_Server", op}, &results); err != nil {
		return "", fmt.Errorf("%s at %s: %w", name, cfg.Endpoint, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return "", fmt.Errorf("%s at %s: the server has no such database", name, cfg.Endpoint)
	}
	_, id, found := strings.Cut(string(results[0].Rows[0]["cid"]), `["uuid","`)
	id = strings.TrimSuffix(id, `"]`)
	if !found || id == noCluster {
		return "", nil
	}
	return id, nil
}
