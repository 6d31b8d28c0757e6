package ovsdb

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// LockName is the OVSDB lock that the one writer of a database holds (decision 20).
const LockName = "portolan"

// The pace of reconnecting and probing.
const (
	backoffMin   = 50 * time.Millisecond
	backoffMax   = 5 * time.Second
	backoffLocal = 250 * time.Millisecond // the most for a socket of this machine: nobody else is kept waiting
	defaultProbe = 10 * time.Second
)

// Config says where a database is and how to use it.
type Config struct {
	DB rows.DB
	// Endpoint is unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT; several, separated by
	// commas, are the servers of one clustered database, of which the leader is used.
	Endpoint string
	Zone     string // value of portolan/zone; not used in Open_vSwitch
	// TLS is for ssl:; it is asked before each connection, so that certificates may change.
	TLS  func() (*tls.Config, error)
	Lock bool // hold LockName, and assert it in every transaction
	// Probe is how long the server may be silent before it is asked, and again
	// before it is given up; 0: 10 s.
	Probe  time.Duration
	Logger *slog.Logger // nil: slog.Default()
	// Observe gets the figures of each Apply, on Apply's goroutine; nil: nobody does.
	Observe func(TxnStats)
}

// State is what a Conn knows now. Values only grow, so a reader that misses a
// change still sees its effect.
type State struct {
	Epoch uint64 // counts connections: another epoch means that a Snapshot must follow
	Up    bool   // connected, and the lock held if one is wanted
	HvCfg int64  // NB: the lowest nb_cfg that every chassis has installed
	Drift uint64 // counts deletions of rows with our tags by somebody else
	Left  uint64 // counts updates in which rows without our tags went
	Err   string // why it is not up
}

// Conn is a connection to one database that is made again when it breaks. Its
// methods may be called from any goroutine, Apply from one at a time.
type Conn struct {
	cfg     Config
	log     *slog.Logger
	stop    context.CancelFunc
	stopped chan struct{}
	bell    chan struct{} // holds one ring

	mu        sync.Mutex // guards what follows
	rpc       *rpc       // nil between connections
	state     State
	readEpoch uint64        // epoch of the last Snapshot
	changed   chan struct{} // closed when state changes
	writing   bool          // a transaction of ours is under way
}

// Dial connects to a database and checks its schema. It keeps trying until the
// server answers or ctx ends; a *SchemaError ends it at once. The connection
// lives until Close, whatever happens to ctx.
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{
		cfg: cfg, log: cfg.Logger, stopped: make(chan struct{}),
		bell: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.log = c.log.With("db", string(cfg.DB))
	if c.cfg.Probe == 0 {
		c.cfg.Probe = defaultProbe
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	first := make(chan error, 1)
	go c.run(life, first)
	for {
		select {
		case err := <-first:
			if err == nil {
				return c, nil
			}
			c.Close()
			return nil, err
		case <-ctx.Done():
			last := c.State().Err // closing would give its own reason
			c.Close()
			return nil, fmt.Errorf("%s at %s: %w (last: %s)", databaseName(cfg.DB), cfg.Endpoint, ctx.Err(), last)
		}
	}
}

// Close ends the connection and waits for its goroutine. The lock, if held, is
// the next waiter's.
func (c *Conn) Close() {
	c.stop()
	<-c.stopped
}

// State returns what is known now.
func (c *Conn) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Moved returns what is known now, and a channel that is closed when that has
// changed. Any number may listen.
func (c *Conn) Moved() (State, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state, c.changed
}

// Changed rings when State has changed. It is a doorbell: one ring may stand for
// many changes, and there is one listener.
func (c *Conn) Changed() <-chan struct{} { return c.bell }

// DB is the database that the connection is to.
func (c *Conn) DB() rows.DB { return c.cfg.DB }

// Refresh reads hv_cfg from the database: the net under the doorbell.
func (c *Conn) Refresh(ctx context.Context) error {
	if c.cfg.DB != rows.NB {
		return nil
	}
	r, _, err := c.session(ctx)
	if err != nil {
		return err
	}
	var results []result
	op := operation{Op: "select", Table: "NB_Global", Where: everyRow(), Columns: []string{"hv_cfg"}}
	if err := r.call(ctx, "transact", []any{databaseName(rows.NB), op}, &results); err != nil {
		return fmt.Errorf("read NB_Global: %w", err)
	}
	if len(results) == 1 && len(results[0].Rows) == 1 {
		c.installed(number(results[0].Rows[0]["hv_cfg"]))
	}
	return nil
}

// session waits until the connection is up.
func (c *Conn) session(ctx context.Context) (*rpc, uint64, error) {
	for {
		c.mu.Lock()
		r, st, changed := c.rpc, c.state, c.changed
		c.mu.Unlock()
		if st.Up {
			return r, st.Epoch, nil
		}
		select {
		case <-changed:
		case <-c.stopped:
			return nil, 0, errors.New("connection is closed for good")
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("%s at %s: %w: %s", databaseName(c.cfg.DB), c.cfg.Endpoint, ctx.Err(), st.Err)
		}
	}
}

// update changes the state under the lock and rings.
func (c *Conn) update(fn func()) {
	c.mu.Lock()
	fn()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// run owns the connection's life. first gets the outcome of the first
// connection that is final: success, or a schema that will not do.
func (c *Conn) run(ctx context.Context, first chan<- error) {
	defer close(c.stopped)
	backoff := backoffMin
	for ctx.Err() == nil {
		r, err := c.connect(ctx)
		if err == nil {
			backoff = backoffMin
			select {
			case first <- nil:
			default:
			}
			err = c.keep(ctx, r)
		}
		news := c.State().Err != err.Error()
		c.update(func() { c.rpc, c.state.Up, c.state.Err = nil, false, err.Error() })
		var schema *SchemaError
		if errors.As(err, &schema) {
			select {
			case first <- err:
			default:
			}
		}
		if ctx.Err() != nil {
			return
		}
		if news {
			c.log.Warn("database not connected", "endpoint", c.cfg.Endpoint, "err", err)
		}
		t := time.NewTimer(backoff)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		backoff = min(2*backoff, c.cfg.slowest())
	}
}

// slowest is the longest pause between two attempts.
func (c Config) slowest() time.Duration {
	if strings.HasPrefix(c.Endpoint, "unix:") && !strings.Contains(c.Endpoint, ",") {
		return backoffLocal
	}
	return backoffMax
}

// connect tries the endpoints in order until one has the database we want.
func (c *Conn) connect(ctx context.Context) (*rpc, error) {
	var errs []error
	for _, endpoint := range strings.Split(c.cfg.Endpoint, ",") {
		r, err := c.open(ctx, endpoint)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// open makes one session: dial, check the schema, watch, ask for the lock.
func (c *Conn) open(ctx context.Context, endpoint string) (*rpc, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.Probe)
	defer cancel()
	stream, err := dial(ctx, endpoint, c.cfg.TLS)
	if err != nil {
		return nil, err
	}
	var r *rpc
	ready := make(chan struct{}) // no notification is handled before r is set
	r = newRPC(stream, func(method string, params json.RawMessage) {
		<-ready
		c.notified(r, method, params)
	})
	close(ready)
	if err := c.begin(ctx, r, endpoint); err != nil {
		r.close(err)
		return nil, err
	}
	return r, nil
}

// begin brings a new session to the point where it can be used, or waits for
// its lock.
func (c *Conn) begin(ctx context.Context, r *rpc, endpoint string) error {
	name := databaseName(c.cfg.DB)
	if strings.Contains(c.cfg.Endpoint, ",") {
		if err := c.leader(ctx, r, endpoint); err != nil {
			return err
		}
	}
	var schema ovsdb.DatabaseSchema
	if err := r.call(ctx, "get_schema", []any{name}, &schema); err != nil {
		return fmt.Errorf("%s at %s: %w", name, endpoint, err)
	}
	if err := checkSchema(c.cfg.DB, endpoint, schema); err != nil {
		return err
	}
	c.update(func() {
		c.rpc = r
		c.state.Epoch++
		c.state.Up, c.state.Err = false, "waiting for the lock "+LockName
	})
	if err := c.watch(ctx, r); err != nil {
		return err
	}
	if c.cfg.Lock {
		var lock struct {
			Locked bool `json:"locked"`
		}
		if err := r.call(ctx, "lock", []any{LockName}, &lock); err != nil {
			return err
		}
		if !lock.Locked {
			c.log.Info("waiting for the database lock", "endpoint", endpoint)
			return nil // "locked" will be notified, and may have been already
		}
	}
	c.up(r)
	return nil
}

// up marks the session r usable, unless another has taken its place.
func (c *Conn) up(r *rpc) {
	c.update(func() {
		if c.rpc == r {
			c.state.Up, c.state.Err = true, ""
		}
	})
	c.log.Info("database connection up", "endpoint", c.cfg.Endpoint)
}

// keep waits for a session's end, asking a silent server whether it is alive.
func (c *Conn) keep(ctx context.Context, r *rpc) error {
	t := time.NewTicker(c.cfg.Probe)
	defer t.Stop()
	for {
		select {
		case <-r.done:
			return r.err()
		case <-ctx.Done():
			r.close(ctx.Err())
			return ctx.Err()
		case <-t.C:
			probe, cancel := context.WithTimeout(ctx, c.cfg.Probe)
			err := r.call(probe, "echo", []any{}, nil)
			cancel()
			var refused *rpcError
			if err != nil && !errors.As(err, &refused) {
				r.close(fmt.Errorf("no answer to a probe: %w", err))
			}
		}
	}
}

func dial(ctx context.Context, endpoint string, config func() (*tls.Config, error)) (net.Conn, error) {
	scheme, address, ok := strings.Cut(endpoint, ":")
	if !ok {
		return nil, fmt.Errorf("endpoint %q: wanted unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT", endpoint)
	}
	var d net.Dialer
	switch scheme {
	case "unix":
		return d.DialContext(ctx, "unix", address)
	case "tcp":
		return d.DialContext(ctx, "tcp", address)
	case "ssl":
		if config == nil {
			return nil, fmt.Errorf("endpoint %q: no TLS configuration", endpoint)
		}
		c, err := config()
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: &d, Config: c}).DialContext(ctx, "tcp", address)
	}
	return nil, fmt.Errorf("endpoint %q: scheme %q, wanted unix, tcp or ssl", endpoint, scheme)
}
