package offload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Database is what of the Open_vSwitch database matters here.
type Database interface {
	Read(ctx context.Context) (Config, error)
}

// Config is how Open vSwitch has been configured.
type Config struct {
	HWOffload bool   // other_config:hw-offload
	TCPolicy  string // other_config:tc-policy; "" is none: hardware and software
	// Priority is other_config:hw-offload-priority of Open vSwitch 3.7 and newer.
	Priority string
	// DPDK is that vswitchd has been given DPDK, whose ports offload without TC.
	DPDK  bool
	Ports map[string]Port // by interface name
}

// Port is one interface of Open vSwitch's.
type Port struct {
	Name   string
	Type   string // "" or "system": a device of the machine's; internal, geneve, patch, dpdk …
	OFPort int    // 0: there is none yet
	Number int    // ifindex of the device behind it; 0: none
	// Priority is other_config:hw-offload-priority: "none" keeps a port out of offload.
	Priority string
	Remote   string // options:remote_ip of a tunnel
	IDs      map[string]string
}

// Socket is a Database behind an endpoint as OVS tools write it: unix:FILE or tcp:HOST:PORT.
type Socket struct{ Endpoint string }

// Read asks in one transaction that changes nothing.
func (s Socket) Read(ctx context.Context) (Config, error) {
	var out Config
	replies, err := s.selectAll(ctx, selection{"Open_vSwitch", []string{"other_config", "dpdk_initialized"}},
		selection{"Interface", []string{"name", "type", "ofport", "ifindex", "other_config", "options", "external_ids"}})
	if err != nil {
		return out, fmt.Errorf("OVS database %s: %w", s.Endpoint, err)
	}
	for _, row := range replies[0] {
		config := row.dict("other_config")
		out.HWOffload, out.TCPolicy, out.Priority = config["hw-offload"] == "true", config["tc-policy"], config["hw-offload-priority"]
		out.DPDK = string(row["dpdk_initialized"]) == "true"
	}
	out.Ports = make(map[string]Port, len(replies[1]))
	for _, row := range replies[1] {
		p := Port{
			Name: row.text("name"), Type: row.text("type"), OFPort: max(0, row.number("ofport")), Number: max(0, row.number("ifindex")),
			Priority: row.dict("other_config")["hw-offload-priority"], Remote: row.dict("options")["remote_ip"], IDs: row.dict("external_ids"),
		}
		out.Ports[p.Name] = p
	}
	return out, nil
}

type selection struct {
	table   string
	columns []string
}

// selectAll reads tables whole (RFC 7047, 4.1.3 and 5.2.2).
func (s Socket) selectAll(ctx context.Context, tables ...selection) ([][]row, error) {
	ctx, cancel := context.WithTimeout(ctx, talkTimeout)
	defer cancel()
	network, address, ok := strings.Cut(s.Endpoint, ":")
	if !ok || network != "unix" && network != "tcp" {
		return nil, errors.New("the endpoint is neither unix:FILE nor tcp:HOST:PORT")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // wakes a read that waits
	params := []any{"Open_vSwitch"}
	for _, t := range tables {
		params = append(params, map[string]any{"op": "select", "table": t.table, "where": []any{}, "columns": t.columns})
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"method": "transact", "params": params, "id": 0}); err != nil {
		return nil, err
	}
	var reply struct {
		Result []struct {
			Rows    []row  `json:"rows"`
			Error   string `json:"error"`
			Details string `json:"details"`
		} `json:"result"`
		Error json.RawMessage `json:"error"`
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return nil, err
	}
	if len(reply.Error) > 0 && string(reply.Error) != "null" {
		return nil, fmt.Errorf("refused: %s", reply.Error)
	}
	if len(reply.Result) < len(tables) {
		return nil, fmt.Errorf("%d results for %d tables", len(reply.Result), len(tables))
	}
	var out [][]row
	for _, r := range reply.Result[:len(tables)] {
		if r.Error != "" {
			return nil, fmt.Errorf("%s: %s", r.Error, r.Details)
		}
		out = append(out, r.Rows)
	}
	return out, nil
}

// row is a row as the database prints it. What is of another form is zero.
type row map[string]json.RawMessage

func (r row) text(column string) string {
	var s string
	if json.Unmarshal(r[column], &s) != nil {
		return ""
	}
	return s
}

// number reads an optional integer, which is one or a set.
func (r row) number(column string) int {
	n, err := strconv.Atoi(string(r[column]))
	if err != nil {
		return 0
	}
	return n
}

// dict reads ["map",[["key","value"],…]].
func (r row) dict(column string) map[string]string {
	var pair [2]json.RawMessage
	var entries [][2]string
	if json.Unmarshal(r[column], &pair) != nil || json.Unmarshal(pair[1], &entries) != nil {
		return nil
	}
	out := make(map[string]string, len(entries))
	for _, e := range entries {
		out[e[0]] = e[1]
	}
	return out
}
