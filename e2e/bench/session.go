package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// session speaks JSON-RPC to an ovsdb-server (RFC 7047): a transaction as bare as
// it can be, so that the floor owes nothing to anybody's client.
type session struct {
	conn net.Conn
	out  *json.Encoder

	mu      sync.Mutex // guards what follows, and writes to out
	next    int
	calls   map[int]chan reply
	waiting map[string]chan struct{}     // by interface; closed when it is installed
	follow  func(params json.RawMessage) // takes updates instead, if set before the monitor; it must not call
}

type reply struct {
	ID     any             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

// operation is one operation of a transact call.
type operation struct {
	Op        string  `json:"op"`
	Table     string  `json:"table"`
	UUIDName  string  `json:"uuid-name,omitempty"`
	Row       columns `json:"row,omitempty"`
	Where     []any   `json:"where,omitempty"`
	Mutations []any   `json:"mutations,omitempty"`
	Columns   []any   `json:"columns,omitempty"`
}

type columns map[string]any

// pairs is a map's value.
type pairs [][2]string

// MarshalJSON writes ["map", [[k, v], …]].
func (p pairs) MarshalJSON() ([]byte, error) { return json.Marshal([]any{"map", [][2]string(p)}) }

func named(row string) []any                 { return []any{"named-uuid", row} }
func where(column, is string) []any          { return []any{[]any{column, "==", is}} }
func insert(column, row string) []any        { return []any{[]any{column, "insert", named(row)}} }
func socketOf(endpoint string) (path string) { return strings.TrimPrefix(endpoint, "unix:") }

func dial(ctx context.Context, endpoint string) (*session, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketOf(endpoint))
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, out: json.NewEncoder(conn), calls: make(map[int]chan reply), waiting: make(map[string]chan struct{})}
	context.AfterFunc(ctx, func() { conn.Close() })
	go s.read()
	return s, nil
}

// read ends with the connection.
func (s *session) read() {
	for d := json.NewDecoder(s.conn); ; {
		var r reply
		if d.Decode(&r) != nil {
			return
		}
		s.mu.Lock()
		switch id, _ := r.ID.(float64); r.Method {
		case "":
			if c := s.calls[int(id)]; c != nil {
				c <- r
				delete(s.calls, int(id))
			}
		case "echo":
			_ = s.out.Encode(columns{"id": r.ID, "result": r.Params, "error": nil})
		case "update":
			if s.follow != nil {
				s.follow(r.Params)
			} else {
				s.updated(r.Params)
			}
		}
		s.mu.Unlock()
	}
}

func (s *session) call(ctx context.Context, method string, params ...any) (json.RawMessage, error) {
	answer := make(chan reply, 1)
	s.mu.Lock()
	s.next++
	s.calls[s.next] = answer
	err := s.out.Encode(columns{"id": s.next, "method": method, "params": params})
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case r := <-answer:
		if len(r.Error) > 0 && string(r.Error) != "null" {
			return nil, fmt.Errorf("%s: %s", method, r.Error)
		}
		return r.Result, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type result struct {
	Count   *int
	Error   string
	Details string
	Rows    []map[string]json.RawMessage
}

func (s *session) run(ctx context.Context, database string, ops []operation) ([]result, error) {
	params := []any{database}
	for _, o := range ops {
		params = append(params, o)
	}
	raw, err := s.call(ctx, "transact", params...)
	if err != nil {
		return nil, err
	}
	var results []result
	if err := json.Unmarshal(raw, &results); err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Error != "" {
			return nil, fmt.Errorf("%s: %s: %s", database, r.Error, r.Details)
		}
	}
	return results, nil
}

// transact commits operations; a mutation must meet one row.
func (s *session) transact(ctx context.Context, database string, ops ...operation) error {
	results, err := s.run(ctx, database, ops)
	if err != nil {
		return err
	}
	for i, o := range ops {
		if c := results[i].Count; o.Op == "mutate" && (c == nil || *c != 1) {
			return fmt.Errorf("%s: a mutation of %s met no row", database, o.Table)
		}
	}
	return nil
}

// find returns the UUID of the row of that name.
func (s *session) find(ctx context.Context, database, table, name string) (string, error) {
	results, err := s.run(ctx, database, []operation{{Op: "select", Table: table, Where: where("name", name), Columns: []any{"_uuid"}}})
	if err != nil {
		return "", err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return "", errors.New("no " + table + " is named " + name)
	}
	var id [2]string
	err = json.Unmarshal(results[0].Rows[0]["_uuid"], &id)
	return id[1], err
}

// monitorInstalled watches what ovn-controller writes of interfaces.
func (s *session) monitorInstalled(ctx context.Context) error {
	type request struct {
		Columns []string `json:"columns"`
	}
	_, err := s.call(ctx, "monitor", "Open_vSwitch", nil, columns{"Interface": request{[]string{"name", "external_ids"}}})
	return err
}

// installed returns a channel that is closed when the interface has ovn-installed.
func (s *session) installed(name string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[name] = make(chan struct{})
	return s.waiting[name]
}

// updated reads a monitor's update; the lock is held.
func (s *session) updated(params json.RawMessage) {
	type update struct {
		Interface map[string]struct {
			New struct {
				Name string `json:"name"`
				IDs  [2]any `json:"external_ids"`
			} `json:"new"`
		}
	}
	var u update
	if json.Unmarshal(params, &[]any{nil, &u}) != nil {
		return
	}
	for _, row := range u.Interface {
		bell := s.waiting[row.New.Name]
		entries, _ := row.New.IDs[1].([]any)
		for _, e := range entries {
			if kv, ok := e.([]any); ok && bell != nil && kv[0] == "ovn-installed" {
				close(bell)
				delete(s.waiting, row.New.Name)
			}
		}
	}
}
