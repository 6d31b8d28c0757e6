package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// callReadTime is how long a caller may take to say what it wants.
const callReadTime = 5 * time.Second

// Listen makes the agent's socket, for root alone; one that an earlier process
// left is replaced.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Serve answers calls until the context ends; then it closes the listener, gives
// up the calls under way, which undo what they did, and returns.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting a CNI call: %w", err)
		}
		calls.Go(func() { a.serve(ctx, conn) })
	}
}

// serve answers the one call of a connection.
func (a *Agent) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(callReadTime))
	call := new(wire.Call)
	if err := wire.Read(conn, call); err != nil {
		a.log.Warn("a CNI call could not be read", "err", err)
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	go func() { // ends with the connection
		_, _ = io.Copy(io.Discard, conn)
		gone(errCallerGone)
	}()
	if err := wire.Write(conn, a.Handle(ctx, call)); err != nil {
		a.log.Warn("a CNI call's caller left before the answer", "command", call.Command, "sandbox", call.ContainerID, "err", err)
	}
}

// Handle serves one call. It bounds the call's time, and lets one call at a time
// work on a sandbox.
func (a *Agent) Handle(ctx context.Context, call *wire.Call) *wire.Reply {
	ctx, cancel := context.WithTimeoutCause(ctx, a.config.Timeout, errTimeout)
	defer cancel()
	r, err := ParseRequest(call)
	if err != nil {
		return &wire.Reply{Error: asError(err)}
	}
	t := a.trace(r.Command, subjectOf(r))
	out, err := a.dispatch(ctx, t, r)
	if err != nil {
		e := t.fail(err)
		if r.Command == wire.Status {
			e = asError(err)
		}
		a.log.Warn("a CNI call failed", "command", r.Command, "sandbox", r.ContainerID, "code", e.Code, "err", e)
		return &wire.Reply{Error: e}
	}
	t.done()
	return &wire.Reply{Result: out}
}

func (a *Agent) dispatch(ctx context.Context, t *trace, r *Request) (json.RawMessage, error) {
	if r.Command == wire.Status {
		return nil, a.status()
	}
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return nil, err
	}
	if !a.recovered.Load() {
		return nil, errNotRecovered
	}
	if r.Config.Type == TypeSRIOV {
		return a.physical(ctx, t, r)
	}
	if r.Command == wire.GC {
		return nil, a.gc(ctx, t, r.Config.ValidAttachments)
	}
	unlock, err := a.sandboxes.lock(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	switch r.Command {
	case wire.Add:
		result, err := a.add(ctx, t, r)
		if err != nil {
			return nil, err
		}
		return result.Encode(r.Config.CNIVersion)
	case wire.Check:
		return nil, a.check(ctx, t, r)
	default:
		return nil, errors.Join(a.del(ctx, t, r), a.removeInfo(r.Config))
	}
}

// status serves STATUS (specification 1.1, section 2).
func (a *Agent) status() error {
	if !a.recovered.Load() {
		return wire.Errorf(wire.CodeUnavailable, "%v", errNotRecovered)
	}
	if a.config.Ready == nil {
		return nil
	}
	err := a.config.Ready()
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e // Ready knows whether existing pods suffer too: CodeDisconnected
	}
	return wire.Errorf(wire.CodeUnavailable, "%v", err)
}

func subjectOf(r *Request) string {
	if r.Args.Name == "" {
		return fmt.Sprintf("sandbox %.12s", r.ContainerID)
	}
	return fmt.Sprintf("pod %s/%s (UID %s, sandbox %.12s)", r.Args.Namespace, r.Args.Name, r.Args.UID, r.ContainerID)
}

func asError(err error) *wire.Error {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e
	}
	return wire.Errorf(codeOf(err), "%v", err)
}
