package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// stream runs a command elsewhere with its standard streams connected, until the
// command or ctx ends.
type stream func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error

// pipe is a connection whose other end is the standard input and output of a
// command that runs elsewhere.
type pipe struct {
	net.Conn // our end; has deadlines, as an HTTP client wants them
	end      context.CancelFunc
	done     chan struct{} // closed when the command has ended; why is set before
	why      error
}

// dial starts the command. How it ended is learned from the first Read that finds
// nothing more.
func dial(ctx context.Context, what string, run stream) net.Conn {
	// The connection outlives the request that has caused it.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	here, there := net.Pipe()
	p := &pipe{Conn: here, end: cancel, done: make(chan struct{})}
	go func() {
		var said tail
		err := run(ctx, there, there, &said)
		if text := strings.TrimSpace(said.String()); text != "" {
			err = errors.Join(err, errors.New(text))
		}
		if err != nil {
			p.why = fmt.Errorf("%s: %w", what, err)
		}
		close(p.done)
		there.Close()
	}()
	return p
}

// Read reads what the command prints. After its end it says how that came.
func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	return n, p.because(err)
}

// Write gives the command its input; what has ended says why.
func (p *pipe) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	return n, p.because(err)
}

// because puts the command's own end in the place of its pipe's.
func (p *pipe) because(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	select {
	case <-p.done:
		if p.why != nil {
			return p.why
		}
	default:
	}
	return err
}

// Close ends the command.
func (p *pipe) Close() error {
	err := p.Conn.Close()
	p.end()
	return err
}

// tail keeps the last of what is written to it: an error message, not a log.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

const tailSize = 2048 // bytes

// Write keeps b.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - tailSize; extra > 0 {
		t.text = t.text[extra:]
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
