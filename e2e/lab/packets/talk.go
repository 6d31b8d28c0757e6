package packets

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Talked is what a meter's TCP connection came to.
type Talked struct {
	Bytes   int           // that arrived, each as it was sent
	Stalled time.Duration // the longest time in which nothing arrived
	Err     error         // the connection broke, or what arrived is not what was sent
}

// String is short: it stands in tables and logs.
func (t Talked) String() string {
	if t.Err != nil {
		return fmt.Sprintf("broken after %d bytes: %v", t.Bytes, t.Err)
	}
	return fmt.Sprintf("%d bytes, longest stall %v", t.Bytes, t.Stalled.Round(time.Millisecond))
}

// Talk is a TCP connection under way that carries numbers in sequence, slowly: it
// is there to be broken or spoiled, not to fill the path.
type Talk struct {
	listener *net.TCPListener
	out      net.Conn
	stop     chan struct{}
	wg       sync.WaitGroup
	sendErr  error
	got      Talked
}

// A Talk writes talkBlock bytes each talkPace.
const (
	talkPace  = 5 * time.Millisecond
	talkBlock = 512
)

// StartTalk opens a connection between two places and begins to send.
func StartTalk(from, to Place) (*Talk, error) {
	t := &Talk{stop: make(chan struct{})}
	err := to.Do(func() error {
		var err error
		t.listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("talk to %s: %w", to.Name, err)
	}
	err = from.Do(func() error {
		var err error
		t.out, err = net.DialTimeout("tcp", t.listener.Addr().String(), 5*time.Second)
		return err
	})
	if err != nil {
		_ = t.listener.Close()
		return nil, fmt.Errorf("talk from %s to %s: %w", from.Name, to.Name, err)
	}
	_ = t.listener.SetDeadline(time.Now().Add(5 * time.Second))
	in, err := t.listener.Accept()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("talk from %s to %s: %w", from.Name, to.Name, err), t.listener.Close(), t.out.Close())
	}
	t.wg.Add(2)
	go func() { defer t.wg.Done(); t.sendErr = t.send() }()
	go func() { defer t.wg.Done(); t.got = hear(in) }()
	return t, nil
}

func (t *Talk) send() error {
	defer t.out.Close()
	pace := time.NewTicker(talkPace)
	defer pace.Stop()
	block := make([]byte, talkBlock)
	for next := uint32(0); ; {
		select {
		case <-t.stop:
			return nil
		case <-pace.C:
		}
		for i := 0; i < talkBlock; i += 4 {
			binary.BigEndian.PutUint32(block[i:], next)
			next++
		}
		if _, err := t.out.Write(block); err != nil {
			return err
		}
	}
}

// hear reads to the sender's end and checks every number.
func hear(conn net.Conn) Talked {
	defer conn.Close()
	var t Talked
	block := make([]byte, talkBlock)
	next, last := uint32(0), time.Now()
	for {
		n, err := io.ReadFull(conn, block)
		t.Bytes += n
		t.Stalled = max(t.Stalled, time.Since(last))
		last = time.Now()
		if errors.Is(err, io.EOF) && n == 0 {
			return t
		}
		if err != nil {
			t.Err = err
			return t
		}
		for i := 0; i < talkBlock; i += 4 {
			if got := binary.BigEndian.Uint32(block[i:]); got != next {
				t.Err = fmt.Errorf("%w: byte %d holds number %d, sent was %d", ErrSpoiled, t.Bytes-talkBlock+i, got, next)
				return t
			}
			next++
		}
	}
}

// Stop ends the connection as its sender, and says what the other end read. What
// is under way has the time that TCP takes to repeat itself a few times.
func (t *Talk) Stop() Talked {
	close(t.stop)
	patience := time.AfterFunc(10*time.Second, func() { _ = t.out.SetDeadline(time.Now()) })
	defer patience.Stop()
	defer t.listener.Close()
	_ = t.out.SetWriteDeadline(time.Now().Add(10 * time.Second))
	t.wg.Wait()
	t.got.Err = errors.Join(t.got.Err, t.sendErr)
	return t.got
}

// Opened is what a meter's new connections came to.
type Opened struct {
	Tried   int
	Failed  int           // no answer in five seconds, or a reset
	Slow    int           // a second or more: TCP had to repeat a packet
	Slowest time.Duration // of those that did not fail
	Err     error         // of the last that failed
}

// String is short: it stands in tables and logs.
func (o Opened) String() string {
	return fmt.Sprintf("%d of %d connections failed, %d slow, slowest %v", o.Failed, o.Tried, o.Slow, o.Slowest.Round(time.Millisecond))
}

// Opener opens a new TCP connection again and again, each with a question and an
// answer, to a place that answers (Serve).
type Opener struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu  sync.Mutex // guards got
	got Opened
}

// StartOpening opens rate connections a second to a port that Serve listens on.
func StartOpening(from Place, to netip.AddrPort, rate int) *Opener {
	o := &Opener{stop: make(chan struct{})}
	o.wg.Add(1)
	go func() { defer o.wg.Done(); o.run(from, to, rate) }()
	return o
}

func (o *Opener) run(from Place, to netip.AddrPort, rate int) {
	pace := time.NewTicker(time.Second / time.Duration(rate))
	defer pace.Stop()
	for {
		select {
		case <-o.stop:
			return
		case <-pace.C:
		}
		o.wg.Add(1)
		go func() { // one slow connection must not keep others from being tried
			defer o.wg.Done()
			begin := time.Now()
			err := open(from, to, 5*time.Second)
			o.count(time.Since(begin), err)
		}()
	}
}

// open is one connection: a question of one byte, and its answer.
func open(from Place, to netip.AddrPort, patience time.Duration) error {
	return from.Do(func() error {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(context.Background(), "tcp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write([]byte{0, 0, 0, 1, 'x'}); err != nil {
			return err
		}
		_, err = io.ReadAll(conn)
		return err
	})
}

func (o *Opener) count(took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got.Tried++
	if err != nil {
		o.got.Failed++
		o.got.Err = err
		return
	}
	if took >= 900*time.Millisecond {
		o.got.Slow++
	}
	o.got.Slowest = max(o.got.Slowest, took)
}

// Stop ends the trying, waits for what was begun, and counts.
func (o *Opener) Stop() Opened {
	close(o.stop)
	o.wg.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.got
}
