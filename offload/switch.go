package offload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Switch is the running ovs-vswitchd.
type Switch interface {
	// Flows dumps the flows of a datapath ("system@ovs-system"). What ends the dump is
	// the last error.
	Flows(ctx context.Context, datapath string) iter.Seq2[*Flow, error]
	// State tells how many flows there are, before they are asked for.
	State(ctx context.Context, datapath string) (SwitchState, error)
}

// SwitchState is what vswitchd says of itself.
type SwitchState struct {
	Running bool
	Version string // "3.5.0"
	Started time.Time
	Flows   int // of the datapath
	// Active is that some port of the datapath has a way to hand flows to TC or a NIC:
	// hw-offload was read when vswitchd made the port.
	Active bool
}

// Control is a Switch behind the control socket in a directory (/run/openvswitch).
type Control struct{ RunDir string }

// talkTimeout bounds a question but a dump, which its caller's context bounds.
const talkTimeout = 10 * time.Second

// socket finds vswitchd's: the pidfile names it.
func (c Control) socket() (string, error) {
	pid, err := os.ReadFile(filepath.Join(c.RunDir, "ovs-vswitchd.pid"))
	if err != nil {
		return "", err
	}
	return filepath.Join(c.RunDir, "ovs-vswitchd."+strings.TrimSpace(string(pid))+".ctl"), nil
}

// Flows implements Switch.
func (c Control) Flows(ctx context.Context, datapath string) iter.Seq2[*Flow, error] {
	return func(yield func(*Flow, error) bool) {
		body, err := c.call(ctx, "dpctl/dump-flows", "-m", datapath)
		if err != nil {
			yield(nil, err)
			return
		}
		defer body.Close()
		for f, err := range Flows(body) {
			if !yield(f, err) {
				return
			}
		}
	}
}

// State implements Switch. A vswitchd that does not run is no error.
func (c Control) State(ctx context.Context, datapath string) (SwitchState, error) {
	ctx, cancel := context.WithTimeout(ctx, talkTimeout)
	defer cancel()
	var s SwitchState
	socket, err := c.socket()
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	info, err := os.Stat(socket)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.Started = info.ModTime()
	text, err := c.ask(ctx, "version")
	if err != nil {
		return s, err
	}
	s.Running, s.Version = true, versionOf(text)
	if text, err = c.ask(ctx, "upcall/show"); err != nil {
		return s, err
	}
	s.Flows, s.Active = upcalls(text, datapath)
	return s, nil
}

// versionOf reads "ovs-vswitchd (Open vSwitch) 3.5.0".
func versionOf(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return ""
	}
	return fields[len(fields)-1]
}

// upcalls reads upcall/show: how many flows a datapath has, and whether it counts
// offloaded ones, which it does where a port can have some.
func upcalls(text, datapath string) (flows int, active bool) {
	here := false
	for line := range strings.Lines(text) {
		if name, ok := strings.CutSuffix(strings.TrimSpace(line), ":"); ok && !strings.HasPrefix(line, " ") {
			here = name == datapath
			continue
		}
		name, rest, ok := strings.Cut(line, ":")
		if !here || !ok {
			continue
		}
		switch strings.TrimSpace(name) {
		case "flows":
			_, n, _ := strings.Cut(rest, "(current ")
			n, _, _ = strings.Cut(n, ")")
			flows, _ = strconv.Atoi(n) // another form says nothing of how many
		case "offloaded flows":
			active = true
		}
	}
	return flows, active
}

// ask calls a method whose answer is short.
func (c Control) ask(ctx context.Context, method string, args ...string) (string, error) {
	body, err := c.call(ctx, method, args...)
	if err != nil {
		return "", err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 1<<20))
	return string(text), err
}

// call calls a method by JSON-RPC and returns its result as a stream: a dump of a
// hundred thousand flows is eighty megabytes, which nobody needs at once.
func (c Control) call(ctx context.Context, method string, args ...string) (io.ReadCloser, error) {
	socket, err := c.socket()
	if err != nil {
		return nil, fmt.Errorf("ovs-vswitchd does not run: %w", err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("ovs-vswitchd: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // wakes a read that waits
	if args == nil {
		args = []string{}
	}
	request := struct {
		ID     int      `json:"id"`
		Method string   `json:"method"`
		Params []string `json:"params"`
	}{0, method, args}
	answer := &result{in: bufio.NewReaderSize(conn, 64<<10), conn: conn, stop: stop}
	err = json.NewEncoder(conn).Encode(request)
	if err == nil {
		err = answer.open()
	}
	if err != nil {
		answer.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("ovs-vswitchd: %s: %w", method, err)
	}
	return answer, nil
}

// result is the string in a JSON-RPC answer's "result", read as it comes.
type result struct {
	in   *bufio.Reader
	conn io.Closer
	stop func() bool
	done bool
}

// open reads up to the string. The server prints members in any order: one that is
// neither the result nor an error is passed over.
func (r *result) open() error {
	if err := r.expect('{'); err != nil {
		return err
	}
	for {
		name, err := r.text()
		if err != nil {
			return err
		}
		if err := r.expect(':'); err != nil {
			return err
		}
		c, err := r.peek()
		switch {
		case err != nil:
			return err
		case c == '"' && name == "result":
			_, err = r.in.Discard(1)
			return err
		case c == '"':
			said, err := r.text()
			if err != nil {
				return err
			}
			if name == "error" {
				return errors.New(strings.TrimSpace(said))
			}
		default: // null, a number
			if err := r.word(); err != nil {
				return err
			}
		}
		if c, err = r.peek(); err != nil {
			return err
		}
		_, _ = r.in.Discard(1) // it has just been seen
		if c == '}' {
			r.done = true // a result of null
			return nil
		}
	}
}

// Read unescapes the string.
func (r *result) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && !r.done {
		if n > 0 && r.in.Buffered() == 0 {
			break
		}
		c, err := r.in.ReadByte()
		if err != nil {
			return n, cutOff(err)
		}
		switch c {
		case '"':
			r.done = true
		case '\\':
			c, err := r.escape()
			if err != nil {
				return n, cutOff(err)
			}
			p[n] = c
			n++
		default:
			p[n] = c
			n++
		}
	}
	if n == 0 && r.done {
		return 0, io.EOF
	}
	return n, nil
}

// escape reads what follows a backslash. Dumps have no character beyond ASCII; one
// that is written as \u is a question mark here.
func (r *result) escape() (byte, error) {
	c, err := r.in.ReadByte()
	if err != nil {
		return 0, err
	}
	switch c {
	case 'n':
		return '\n', nil
	case 't':
		return '\t', nil
	case 'r':
		return '\r', nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'u':
		var hex [4]byte
		if _, err := io.ReadFull(r.in, hex[:]); err != nil {
			return 0, err
		}
		n, err := strconv.ParseUint(string(hex[:]), 16, 16)
		if err != nil || n > 127 {
			return '?', nil
		}
		return byte(n), nil
	}
	return c, nil
}

// Close ends the call.
func (r *result) Close() error {
	r.stop()
	return r.conn.Close()
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// peek is the next character that is no space.
func (r *result) peek() (byte, error) {
	for {
		b, err := r.in.Peek(1)
		if err != nil {
			return 0, cutOff(err)
		}
		if b[0] != ' ' && b[0] != '\n' && b[0] != '\t' && b[0] != '\r' {
			return b[0], nil
		}
		_, _ = r.in.Discard(1) // it has just been seen
	}
}

func (r *result) expect(want byte) error {
	c, err := r.peek()
	if err != nil {
		return err
	}
	if c != want {
		return fmt.Errorf("the answer has %q where %q was to be", c, want)
	}
	_, err = r.in.Discard(1)
	return err
}

// text reads a short string.
func (r *result) text() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(r, 1<<16))
	r.done = false
	return string(text), err
}

// word reads a value that is no string.
func (r *result) word() error {
	for {
		c, err := r.peek()
		if err != nil {
			return err
		}
		if c == ',' || c == '}' {
			return nil
		}
		_, _ = r.in.Discard(1) // it has just been seen
	}
}
