package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Steady is what a meter's flow of numbered datagrams came to. A datagram that was
// never sent is not lost: a sender that the machine keeps from running sends late.
type Steady struct {
	Sent       int
	Lost       int
	Duplicated int
	Reordered  int           // arrived after one with a higher number
	Gap        time.Duration // the longest time of the sender's in which what it sent got lost; 0: nothing was
	Holes      []Hole        // what was lost, at most 20 of them
	Err        error         // why the last that could not even be sent was not; it counts as lost
}

// Hole is a run of datagrams that did not arrive.
type Hole struct {
	At    time.Time // when its first was sent
	Count int
}

// String is short: it stands in tables and logs.
func (s Steady) String() string {
	text := fmt.Sprintf("%d of %d lost", s.Lost, s.Sent)
	if s.Lost > 0 {
		text += fmt.Sprintf(", longest gap %v", s.Gap.Round(time.Millisecond))
	}
	if s.Duplicated > 0 || s.Reordered > 0 {
		text += fmt.Sprintf(", %d twice, %d out of order", s.Duplicated, s.Reordered)
	}
	return text
}

// Flow is a steady flow of numbered UDP datagrams under way, of one source port.
type Flow struct {
	from, to Place
	rate     int
	out, in  *net.UDPConn
	stop     chan struct{}
	ended    chan struct{} // the sender has
	wg       sync.WaitGroup

	numbered atomic.Int64 // how many were sent
	from0    atomic.Int64 // the first that counts

	// Of the sender until it has ended.
	sent []time.Time
	fail error

	mu       sync.Mutex // guards what follows
	seen     []uint8    // copies by number
	highest  int
	reorders int
	last     time.Time // something arrived
}

// The datagrams of a flow: a mark, so that a stranger's is not counted, then the
// number. Small ones: what is tested is whether they pass, not how many bytes.
const (
	flowMagic = 0x706f7274666c6f77
	flowSize  = 64
	// mostAtOnce is how far a sender that was kept from running may catch up in one
	// go. A longer burst would overflow a queue and prove nothing.
	mostAtOnce = 5
)

// StartFlow begins to send rate datagrams a second from one place to another.
func StartFlow(from, to Place, rate int) (*Flow, error) {
	f := &Flow{from: from, to: to, rate: rate, stop: make(chan struct{}), ended: make(chan struct{}), highest: -1}
	err := to.Do(func() error {
		var err error
		f.in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		return errors.Join(err, forceBuffer(f.in))
	})
	if err != nil {
		return nil, fmt.Errorf("flow to %s: %w", to.Name, err)
	}
	err = from.Do(func() error {
		var err error
		f.out, err = net.DialUDP("udp", nil, f.in.LocalAddr().(*net.UDPAddr))
		return err
	})
	if err != nil {
		_ = f.in.Close()
		return nil, fmt.Errorf("flow from %s: %w", from.Name, err)
	}
	f.wg.Add(1)
	go func() { defer close(f.ended); f.send() }()
	go func() { defer f.wg.Done(); f.receive() }()
	return f, nil
}

// forceBuffer gives a receiver room for seconds of a flow: what its own reader is
// late for must not count as lost.
func forceBuffer(c *net.UDPConn) error {
	if c == nil {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctl := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
	return errors.Join(ctl, err)
}

// send keeps the pace by the clock, not by counting ticks: ticks get lost on a busy
// machine. What it is late for beyond mostAtOnce is never sent.
func (f *Flow) send() {
	pace := time.NewTicker(time.Second / time.Duration(f.rate))
	defer pace.Stop()
	buf := make([]byte, flowSize)
	binary.BigEndian.PutUint64(buf, flowMagic)
	begin, skipped := time.Now(), 0
	for {
		select {
		case <-f.stop:
			return
		case <-pace.C:
		}
		due := int(time.Since(begin).Seconds()*float64(f.rate)) - len(f.sent) - skipped
		if due > mostAtOnce {
			skipped += due - mostAtOnce
			due = mostAtOnce
		}
		for range due {
			binary.BigEndian.PutUint64(buf[8:], uint64(len(f.sent)))
			now := time.Now()
			_, err := f.out.Write(buf)
			switch {
			case err == nil, refused(err):
				f.sent = append(f.sent, now)
			case errors.Is(err, unix.ENOBUFS):
			default:
				// The place has no way out, or has gone: what cannot be sent is lost.
				f.sent, f.fail = append(f.sent, now), err
			}
			f.numbered.Store(int64(len(f.sent)))
		}
	}
}

// refused is ICMP's answer to an earlier datagram, told by the next write, which
// Linux then does not do.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

func (f *Flow) receive() {
	buf := make([]byte, 2*flowSize)
	for {
		n, err := f.in.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != flowSize || binary.BigEndian.Uint64(buf) != flowMagic {
			continue
		}
		f.arrived(int(binary.BigEndian.Uint64(buf[8:])))
	}
}

func (f *Flow) arrived(number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if grow := number + 1 - len(f.seen); grow > 0 {
		f.seen = append(f.seen, make([]uint8, grow)...)
	}
	f.seen[number]++
	if number < f.highest {
		f.reorders++
	}
	f.highest, f.last = max(f.highest, number), time.Now()
}

// Arrived waits until something that is sent from now on arrives.
func (f *Flow) Arrived(patience time.Duration) error {
	begin := time.Now()
	ok := wait(patience, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.last.After(begin)
	})
	if !ok {
		return fmt.Errorf("flow from %s to %s: nothing arrived in %v", f.from.Name, f.to.Name, patience)
	}
	return nil
}

// Forget makes the count begin with what is sent from now on.
func (f *Flow) Forget() { f.from0.Store(f.numbered.Load()) }

// wait asks until a condition holds or time is up.
func wait(patience time.Duration, ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// underway is how long the last datagrams may take to arrive.
const underway = time.Second

// Stop ends the flow, waits for what is under way, and counts.
func (f *Flow) Stop() Steady {
	close(f.stop)
	<-f.ended
	wait(underway, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.highest == len(f.sent)-1 && time.Since(f.last) > 100*time.Millisecond // copies of the last, too
	})
	_ = f.in.Close()
	f.wg.Wait()
	_ = f.out.Close()
	return f.count()
}

func (f *Flow) count() Steady {
	first := int(f.from0.Load())
	s := Steady{Sent: len(f.sent) - first, Reordered: f.reorders, Err: f.fail}
	run := 0
	for i := first; i < len(f.sent); i++ {
		if i < len(f.seen) && f.seen[i] > 0 {
			s.Duplicated += int(f.seen[i]) - 1
			run = 0
			continue
		}
		s.Lost++
		if run++; run == 1 {
			s.Holes = append(s.Holes, Hole{At: f.sent[i]})
		}
		hole := &s.Holes[len(s.Holes)-1]
		hole.Count++
		end := f.sent[i]
		if i+1 < len(f.sent) {
			end = f.sent[i+1]
		}
		s.Gap = max(s.Gap, end.Sub(hole.At))
	}
	if len(s.Holes) > 20 {
		s.Holes = slices.Clip(s.Holes[:20])
	}
	return s
}
