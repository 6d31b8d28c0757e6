package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Place is where sockets can be opened: a Host or a Pod.
type Place interface {
	In(fn func() error) error
}

// Count is numbered UDP packets from one place to another, where each is sent back.
type Count struct {
	every time.Duration
	conn  net.Conn
	far   net.PacketConn
	stop  chan struct{}
	ended chan struct{}

	mu   sync.Mutex // guards what follows
	sent []time.Time
	back map[uint64]bool
}

// Tally is what became of counted packets.
type Tally struct {
	Sent, Lost int
	Gap        time.Duration // from the first to the last of the longest run of lost packets, and one more
}

func (t Tally) String() string {
	return fmt.Sprintf("%d of %d lost, the longest gap %d ms", t.Lost, t.Sent, t.Gap.Milliseconds())
}

// Counted sends a packet every so often, to an address of a place, until Stop.
func Counted(from, to Place, addr netip.AddrPort, every time.Duration) (*Count, error) {
	c := &Count{every: every, stop: make(chan struct{}), ended: make(chan struct{}), back: map[uint64]bool{}}
	err := to.In(func() (err error) {
		c.far, err = net.ListenPacket("udp", addr.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	err = from.In(func() (err error) {
		c.conn, err = net.Dial("udp", addr.String())
		return err
	})
	if err != nil {
		c.far.Close()
		return nil, err
	}
	go c.echo()
	go c.read()
	go c.send()
	return c, nil
}

// echo sends packets back until the far end is closed.
func (c *Count) echo() {
	buf := make([]byte, 64)
	for {
		n, from, err := c.far.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.far.WriteTo(buf[:n], from)
	}
}

// read notes what comes back until the near end is closed.
func (c *Count) read() {
	buf := make([]byte, 64)
	for {
		n, err := c.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n >= 8 {
			c.mu.Lock()
			c.back[binary.BigEndian.Uint64(buf)] = true
			c.mu.Unlock()
		}
	}
}

func (c *Count) send() {
	defer close(c.ended)
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}
		c.mu.Lock()
		number := uint64(len(c.sent))
		c.sent = append(c.sent, time.Now())
		c.mu.Unlock()
		_, _ = c.conn.Write(binary.BigEndian.AppendUint64(nil, number))
	}
}

// Sent is how many packets have been sent.
func (c *Count) Sent() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent)
}

// settling is how long a packet may be on its way when sending ends.
const settling = 2 * time.Second

// Stop ends it when all has come back, or settling is over.
func (c *Count) Stop() Tally {
	close(c.stop)
	<-c.ended
	end := time.After(settling)
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for over := false; !over && c.tally().Lost > 0; {
		select {
		case <-end:
			over = true
		case <-tick.C:
		}
	}
	c.conn.Close()
	c.far.Close()
	return c.tally()
}

func (c *Count) tally() Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := Tally{Sent: len(c.sent)}
	first := -1
	for n := range c.sent {
		if c.back[uint64(n)] {
			first = -1
			continue
		}
		t.Lost++
		if first < 0 {
			first = n
		}
		if run := c.sent[n].Sub(c.sent[first]) + c.every; run > t.Gap {
			t.Gap = run
		}
	}
	return t
}
