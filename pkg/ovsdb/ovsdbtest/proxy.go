package ovsdbtest

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Fault is what a Proxy does to the next transaction that carries its text.
type Fault uint8

// The faults. After one has struck, its connection is cut.
const (
	CutBeforeRequest Fault = iota + 1 // the server never sees the request
	CutBeforeReply                    // the server commits; the client never hears
)

// Proxy stands between a client and a server's unix socket and cuts connections
// as it is told.
type Proxy struct {
	Endpoint string // unix:PATH, for clients

	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex // guards what follows
	fault  Fault
	marker []byte
	refuse bool
	conns  map[net.Conn]struct{}
	seen   bytes.Buffer // what clients have sent
}

// StartProxy puts a proxy before an endpoint until the test ends.
func StartProxy(t testing.TB, endpoint string) *Proxy {
	t.Helper()
	path := filepath.Join(shortDir(t), "proxy.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Endpoint: "unix:" + path, target: strings.TrimPrefix(endpoint, "unix:"), listener: l, conns: map[net.Conn]struct{}{}}
	p.running.Add(1)
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		p.Cut()
		p.running.Wait()
	})
	return p
}

// Inject arms a fault for the first request that contains marker.
func (p *Proxy) Inject(f Fault, marker string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.marker = f, []byte(marker)
}

// Refuse makes the proxy close new connections at once, or accept them again.
func (p *Proxy) Refuse(yes bool) {
	p.mu.Lock()
	p.refuse = yes
	p.mu.Unlock()
}

// Cut closes every connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Take returns what clients have sent since the last Take.
func (p *Proxy) Take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen.String()
	p.seen.Reset()
	return s
}

func (p *Proxy) accept() {
	defer p.running.Done()
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.target)
		p.mu.Lock()
		if err != nil || p.refuse {
			p.mu.Unlock()
			client.Close()
			if err == nil {
				server.Close()
			}
			continue
		}
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
		p.mu.Unlock()
		struck := make(chan struct{}) // closed when replies must stop
		p.running.Add(2)
		go p.requests(client, server, struck)
		go p.replies(client, server, struck)
	}
}

// requests copies from client to server, watching for the marker.
func (p *Proxy) requests(client, server net.Conn, struck chan struct{}) {
	defer p.running.Done()
	defer p.drop(client, server)
	buf := make([]byte, 1<<16)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		switch p.strikes(buf[:n]) {
		case CutBeforeRequest:
			return
		case CutBeforeReply:
			close(struck)
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) strikes(data []byte) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Write(data)
	if p.fault == 0 || !bytes.Contains(data, p.marker) {
		return 0
	}
	f := p.fault
	p.fault = 0
	return f
}

// replies copies from server to client until struck.
func (p *Proxy) replies(client, server net.Conn, struck chan struct{}) {
	defer p.running.Done()
	defer p.drop(client, server)
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-struck: // the server has answered, so it has committed
			if bytes.Contains(buf[:n], []byte(`"result":[`)) {
				return
			}
			continue
		default:
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) drop(conns ...io.Closer) {
	for _, c := range conns {
		c.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		for _, d := range conns {
			if c == d {
				delete(p.conns, c)
			}
		}
	}
}
