// Package link is what the host and PID 1 of a guest say to each other, on a
// virtio serial port: the host sends one Request, the guest sends what the
// command prints as it prints it, and at the end one Exit.
//
//	host ──Request──────────────────────────────> guest
//	host <──Booted, Stdout…, Stderr…, then Exit── guest
//
// A frame is its kind (one byte), the length of what follows (four bytes, big
// endian), and that. The port keeps order and loses nothing; it ends with QEMU.
package link

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Port is the name of the virtio serial port.
const Port = "portolan.link"

// Kind says what a frame holds.
type Kind byte

// The kinds of frames.
const (
	KindRequest Kind = 'r' // Request, as JSON
	KindBooted  Kind = 'b' // Booted, as JSON
	KindStdout  Kind = 'o' // bytes
	KindStderr  Kind = 'e' // bytes
	KindExit    Kind = 'x' // Exit, as JSON: nothing comes after it
)

// maxFrame bounds what a reader takes in at once; larger writes are cut in pieces.
const maxFrame = 1 << 20

// Share is a directory of the host's that the guest mounts.
type Share struct {
	Tag  string // of the 9p device
	Path string // where it is mounted
}

// Request is what the guest is to do.
type Request struct {
	Argv   []string
	Env    []string // added to the guest's PATH, HOME and TERM
	Dir    string   // working directory; empty: /
	Shares []Share
	Time   int64 // seconds since 1970, for the guest's clock
}

// Booted says that userspace is there.
type Booted struct {
	Kernel string
	Uptime float64 // seconds since the kernel started
}

// Exit is how the command ended.
type Exit struct {
	Code   int     // of the command; 128 plus the signal's number if a signal ended it
	Error  string  // why it could not be run; empty: it was
	Uptime float64 // seconds since the kernel started
}

// Writer writes frames; it may be used from several goroutines.
type Writer struct {
	mu sync.Mutex // one frame at a time
	w  io.Writer
}

// NewWriter gives a writer of frames.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Bytes writes p in one or more frames.
func (w *Writer) Bytes(k Kind, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n := min(len(p), maxFrame)
		frame := make([]byte, 5, 5+n)
		frame[0] = byte(k)
		binary.BigEndian.PutUint32(frame[1:], uint32(n))
		if _, err := w.w.Write(append(frame, p[:n]...)); err != nil {
			return err
		}
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// JSON writes v in one frame.
func (w *Writer) JSON(k Kind, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(text) > maxFrame {
		return fmt.Errorf("%d bytes of JSON: more than a frame's %d", len(text), maxFrame)
	}
	return w.Bytes(k, text)
}

// Stream is an io.Writer whose writes become frames of a kind.
func (w *Writer) Stream(k Kind) io.Writer { return stream{w, k} }

type stream struct {
	w *Writer
	k Kind
}

func (s stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.w.Bytes(s.k, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read reads one frame. io.EOF: the other end is gone, between two frames.
func Read(r io.Reader) (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("a frame of kind %q has %d bytes, more than %d: this is no link", head[0], n, maxFrame)
	}
	p := make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(head[0]), p, nil
}
