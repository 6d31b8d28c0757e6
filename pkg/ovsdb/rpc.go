package ovsdb

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// errClosed is what calls get when the connection ends under them: whatever
// they asked for may or may not have happened.
var errClosed = errors.New("connection closed")

// rpcError is a JSON-RPC error reply: the call was refused as a whole.
type rpcError struct {
	Method string
	Reply  string
}

func (e *rpcError) Error() string { return e.Method + ": " + e.Reply }

// message is any JSON-RPC 1.0 message: a request has a method, a reply does not.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  json.RawMessage `json:"error"`
}

type request struct {
	ID     uint64 `json:"id"`
	Method string `json:"method"`
	Params any    `json:"params"`
}

// rpc is one JSON-RPC session over a stream. One goroutine reads; it ends when
// the stream does.
type rpc struct {
	stream net.Conn
	// notify gets the server's notifications on the reading goroutine, in order:
	// an update is handled before the reply that follows it on the wire.
	notify func(method string, params json.RawMessage)
	done   chan struct{} // closed when the session has ended

	write sync.Mutex // guards writes to stream

	mu    sync.Mutex // guards what follows
	next  uint64
	calls map[uint64]chan message
	cause error // why the session ended
}

func newRPC(stream net.Conn, notify func(string, json.RawMessage)) *rpc {
	r := &rpc{stream: stream, notify: notify, done: make(chan struct{}), calls: map[uint64]chan message{}}
	go r.read()
	return r
}

// call sends a request and waits for its reply. After errClosed or a context's
// end the request may have been carried out.
func (r *rpc) call(ctx context.Context, method string, params, result any) error {
	answer := make(chan message, 1)
	r.mu.Lock()
	r.next++
	id := r.next
	r.calls[id] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.calls, id)
		r.mu.Unlock()
	}()
	if err := r.send(request{ID: id, Method: method, Params: params}); err != nil {
		r.close(err)
		return fmt.Errorf("%s: %w: %w", method, errClosed, err)
	}
	select {
	case m := <-answer:
		return m.decode(method, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	case <-r.done:
	}
	select { // the reply may have come together with the end
	case m := <-answer:
		return m.decode(method, result)
	default:
		return fmt.Errorf("%s: %w: %w", method, errClosed, r.err())
	}
}

func (m message) decode(method string, result any) error {
	if len(m.Error) > 0 && string(m.Error) != "null" {
		return &rpcError{Method: method, Reply: string(m.Error)}
	}
	if result == nil {
		return nil
	}
	if raw, ok := result.(*json.RawMessage); ok {
		*raw = m.Result // the caller reads it itself
		return nil
	}
	if err := json.Unmarshal(m.Result, result); err != nil {
		return fmt.Errorf("%s: reply: %w", method, err)
	}
	return nil
}

func (r *rpc) send(m any) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	r.write.Lock()
	defer r.write.Unlock()
	_, err = r.stream.Write(text)
	return err
}

func (r *rpc) read() {
	d := json.NewDecoder(bufio.NewReaderSize(r.stream, 1<<16))
	for {
		var m message
		if err := d.Decode(&m); err != nil {
			r.close(err)
			return
		}
		switch {
		case m.Method == "echo":
			reply := struct {
				ID     json.RawMessage `json:"id"`
				Result json.RawMessage `json:"result"`
				Error  any             `json:"error"`
			}{m.ID, m.Params, nil}
			if err := r.send(reply); err != nil {
				r.close(err)
				return
			}
		case m.Method != "":
			r.notify(m.Method, m.Params)
		default:
			r.deliver(m)
		}
	}
}

func (r *rpc) deliver(m message) {
	var id uint64
	if json.Unmarshal(m.ID, &id) != nil {
		return // not a reply to anything we asked
	}
	r.mu.Lock()
	answer := r.calls[id]
	r.mu.Unlock()
	if answer != nil {
		answer <- m
	}
}

// close ends the session; the first cause is kept.
func (r *rpc) close(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil {
		return
	}
	r.cause = cause
	r.stream.Close()
	close(r.done)
}

func (r *rpc) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cause
}
