package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// client speaks JSON-RPC 1.0 (RFC 7047, 4) with an ovsdb-server, one call at a time.
type client struct {
	conn net.Conn
	dec  *json.Decoder
	next int
}

// message is any of the three kinds of message.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

func dial(ctx context.Context, socket string) (*client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	return &client{conn: conn, dec: json.NewDecoder(conn)}, nil
}

// call sends a request and reads to its answer; what else comes is dropped.
func (c *client) call(method string, params []any, result any) error {
	c.next++
	id := c.next
	req := map[string]any{"id": id, "method": method, "params": params}
	if err := json.NewEncoder(c.conn).Encode(req); err != nil {
		return err
	}
	for {
		m, err := c.read()
		if err != nil {
			return err
		}
		if m.Method != "" {
			continue
		}
		if string(m.ID) != fmt.Sprint(id) {
			continue
		}
		if len(m.Error) > 0 && string(m.Error) != "null" {
			return fmt.Errorf("%s: %s", method, m.Error)
		}
		return json.Unmarshal(m.Result, result)
	}
}

// read takes the next message that is not a probe, which it answers.
func (c *client) read() (message, error) {
	for {
		var m message
		if err := c.dec.Decode(&m); err != nil {
			return m, err
		}
		if m.Method != "echo" {
			return m, nil
		}
		answer := map[string]any{"id": m.ID, "result": m.Params, "error": nil}
		if err := json.NewEncoder(c.conn).Encode(answer); err != nil {
			return m, err
		}
	}
}

// schema is what is read of a database's schema.
type schema struct {
	Tables map[string]struct {
		Columns map[string]struct {
			Ephemeral bool `json:"ephemeral"`
		} `json:"columns"`
	} `json:"tables"`
}

// record is one row: column to value, decoded.
type record map[string]any

// tables are all rows of a database: table, UUID.
type tables map[string]map[string]record

// readAll reads a database in one transaction.
func readAll(ctx context.Context, socket, database string) (tables, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	var sch schema
	if err := c.call("get_schema", []any{database}, &sch); err != nil {
		return nil, err
	}
	params := []any{database}
	var order []string
	for t := range sch.Tables {
		order = append(order, t)
		params = append(params, map[string]any{"op": "select", "table": t, "where": []any{}})
	}
	var results []struct {
		Rows  []map[string]json.RawMessage `json:"rows"`
		Error string                       `json:"error"`
	}
	if err := c.call("transact", params, &results); err != nil {
		return nil, err
	}
	out := tables{}
	for i, t := range order {
		if i >= len(results) || results[i].Error != "" {
			return nil, fmt.Errorf("%s: table %s not read", database, t)
		}
		out[t] = map[string]record{}
		for _, raw := range results[i].Rows {
			row := record{}
			for column, text := range raw {
				if row[column], err = decode(text); err != nil {
					return nil, fmt.Errorf("%s: %s.%s: %w", database, t, column, err)
				}
			}
			id, _ := row["_uuid"].(uuid)
			delete(row, "_uuid")
			delete(row, "_version")
			out[t][string(id)] = row
		}
	}
	return out, nil
}

// Values of a row are string, float64, bool, uuid, set and dict.
type (
	uuid string
	set  []any
	dict [][2]any
)

// decode reads a value (RFC 7047, 5.1).
func decode(raw json.RawMessage) (any, error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	return convert(v)
}

func convert(v any) (any, error) {
	pair, ok := v.([]any)
	if !ok {
		return v, nil
	}
	if len(pair) != 2 {
		return nil, errors.New("not a value of OVSDB's")
	}
	list, _ := pair[1].([]any)
	switch pair[0] {
	case "uuid":
		id, _ := pair[1].(string)
		return uuid(id), nil
	case "set":
		out := make(set, len(list))
		for i, e := range list {
			var err error
			if out[i], err = convert(e); err != nil {
				return nil, err
			}
		}
		return out, nil
	case "map":
		out := make(dict, len(list))
		for i, e := range list {
			kv, _ := e.([]any)
			if len(kv) != 2 {
				return nil, errors.New("not a map of OVSDB's")
			}
			for j := range 2 {
				var err error
				if out[i][j], err = convert(kv[j]); err != nil {
					return nil, err
				}
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("unknown kind of value %v", pair[0])
}

// Write is one change of one row that somebody committed.
type Write struct {
	Table  string
	UUID   string
	Kind   string   // insert, delete, modify
	Fields []string // columns of a modification
	Row    string   // the row as it is, or was
}

// String is a line.
func (w Write) String() string {
	return fmt.Sprintf("%s %s %s %v: %s", w.Kind, w.Table, w.UUID, w.Fields, w.Row)
}

// Watcher collects every change of a database while it is open.
type Watcher struct {
	client *client
	// text is a column's value without what is volatile in it.
	text func(table, column string, v any) string
	wg   sync.WaitGroup

	mu     sync.Mutex // guards the rest
	writes []Write
	err    error
}

// watch begins to collect the changes of a database, but of what is volatile.
func watch(ctx context.Context, socket, database string, r renderer) (*Watcher, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	w := &Watcher{client: c, text: func(table, column string, v any) string { return r.text(table, column, v, deepest) }}
	var sch schema
	if err := c.call("get_schema", []any{database}, &sch); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	requests := map[string]any{}
	for t, table := range sch.Tables {
		var columns []string
		for column := range table.Columns {
			if list := r.drop[r.db+" "+t]; !slices.Contains(list, column) && !slices.Contains(list, "*") {
				columns = append(columns, column)
			}
		}
		if columns == nil {
			continue
		}
		requests[t] = map[string]any{"columns": columns, "select": map[string]bool{"initial": false}}
	}
	var initial json.RawMessage
	if err := c.call("monitor", []any{database, "watch", requests}, &initial); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	_ = c.conn.SetDeadline(time.Time{})
	w.wg.Add(1)
	go func() { defer w.wg.Done(); w.run() }()
	return w, nil
}

func (w *Watcher) run() {
	for {
		m, err := w.client.read()
		if err != nil {
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			return
		}
		if m.Method == "update" {
			w.take(m.Params)
		}
	}
}

func (w *Watcher) take(params json.RawMessage) {
	var id json.RawMessage
	var updates map[string]map[string]struct {
		Old map[string]json.RawMessage `json:"old"`
		New map[string]json.RawMessage `json:"new"`
	}
	pair := []any{&id, &updates}
	if json.Unmarshal(params, &pair) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for table, rows := range updates {
		for id, u := range rows {
			change := Write{Table: table, UUID: id, Kind: "modify"}
			text := u.New
			switch {
			case u.Old == nil:
				change.Kind = "insert"
			case u.New == nil:
				change.Kind, text = "delete", u.Old
			default:
				change.Fields = w.changed(table, u.Old, u.New)
				if change.Fields == nil {
					continue
				}
			}
			row, _ := json.Marshal(text)
			change.Row = string(row)
			w.writes = append(w.writes, change)
		}
	}
}

// changed lists the columns that differ in what is not volatile.
func (w *Watcher) changed(table string, before, after map[string]json.RawMessage) []string {
	var out []string
	for column, raw := range before {
		a, errA := decode(raw)
		b, errB := decode(after[column])
		if errA != nil || errB != nil || w.text(table, column, a) != w.text(table, column, b) {
			out = append(out, column)
		}
	}
	return out
}

// Close ends the watching and gives what was collected. An error means that the
// server went away meanwhile, and that changes may be missing.
func (w *Watcher) Close() ([]Write, error) {
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	_ = w.client.conn.Close()
	w.wg.Wait()
	return w.writes, err
}
