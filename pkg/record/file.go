package record

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// A file is gzip over: the magic, the header as JSON, then chunks. Each of the
// latter has a byte that says what it is and its length; the last one says how many
// there were, so a file that was cut off is known.
const magic = "portolan flight recorder 1\n"

const (
	chunkHeader     byte = 'H'
	chunkCheckpoint byte = 'C'
	chunkStep       byte = 'S' // events and answer
	chunkOpen       byte = 'O' // events of a step that was not answered: the process ended in it
	chunkEnd        byte = 'E'
)

// largest is what a chunk may have: a snapshot of a hundred thousand pods is less.
const largest = 1 << 30

// Header says where a recording comes from.
type Header struct {
	Version   string    `json:"version"` // of the program: another one may compile otherwise
	Process   string    `json:"process"`
	Node      string    `json:"node,omitempty"`
	Zone      string    `json:"zone"`
	Written   time.Time `json:"written"`
	Databases []rows.DB `json:"databases"` // of the engine
	MaxOps    int       `json:"maxOps"`    // of the engine
	// Layout is how the recorded types were laid out.
	Layout map[string]string `json:"layout"`
}

type writer struct {
	zip    *gzip.Writer
	codec  *Codec
	chunks uint64
	err    error
}

func newWriter(w io.Writer, h Header) (*writer, error) {
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	h.Layout = codec.layout
	text, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	f := &writer{zip: gzip.NewWriter(w), codec: codec}
	_, f.err = f.zip.Write([]byte(magic))
	f.chunk(chunkHeader, text)
	return f, f.err
}

// chunk writes one; the first error stays.
func (f *writer) chunk(kind byte, data []byte) {
	f.raw(binary.AppendUvarint([]byte{kind}, uint64(len(data))))
	f.raw(data)
	f.chunks++
}

func (f *writer) raw(data []byte) {
	if f.err == nil {
		_, f.err = f.zip.Write(data)
	}
}

func (f *writer) checkpoint(c *engine.Checkpoint) { f.chunk(chunkCheckpoint, f.codec.Append(nil, c)) }

// segment writes the steps of a segment of the ring, which lie in it with their
// lengths.
func (f *writer) segment(s []byte) {
	for len(s) > 0 {
		n, size := binary.Uvarint(s)
		f.chunk(chunkStep, s[size:size+int(n)])
		s = s[size+int(n):]
	}
}

func (f *writer) close() error {
	f.chunk(chunkEnd, binary.AppendUvarint(nil, f.chunks))
	return errors.Join(f.err, f.zip.Close())
}

// Entry is one chunk of a file; one field is set.
type Entry struct {
	Checkpoint *engine.Checkpoint
	Step       *Step
}

// Step is one step of an engine.
type Step struct {
	Events []engine.Event
	Answer *Answer // nil: the process ended in this step
}

// File reads a recording.
type File struct {
	Header Header
	in     *bufio.Reader
	codec  *Codec
	chunks uint64
}

// Open reads a recording's beginning. A recording of other types is refused: what
// compiles it would not be what compiled it then.
func Open(r io.Reader) (*File, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("not a recording: %w", err)
	}
	return open(zip)
}

func open(r io.Reader) (*File, error) {
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	f := &File{in: bufio.NewReader(r), codec: codec}
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f.in, head); err != nil || string(head) != magic {
		return nil, fmt.Errorf("not a recording of this format: it begins with %q, wanted %q", head, magic)
	}
	kind, text, err := f.chunk()
	if err != nil || kind != chunkHeader {
		return nil, fmt.Errorf("the recording has no header: %w", err)
	}
	if err := json.Unmarshal(text, &f.Header); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if t, ok := f.sameTypes(); !ok {
		return nil, fmt.Errorf("recorded by version %s, whose %s was {%s} and here is {%s}: replay it with that version",
			f.Header.Version, t, f.Header.Layout[t], codec.layout[t])
	}
	return f, nil
}

// sameTypes finds the first type that was laid out otherwise.
func (f *File) sameTypes() (string, bool) {
	all := maps.Clone(f.codec.layout)
	maps.Copy(all, f.Header.Layout)
	for _, t := range slices.Sorted(maps.Keys(all)) {
		if f.codec.layout[t] != f.Header.Layout[t] {
			return t, false
		}
	}
	return "", true
}

func (f *File) chunk() (byte, []byte, error) {
	kind, err := f.in.ReadByte()
	if err != nil {
		return 0, nil, cut(err)
	}
	n, err := binary.ReadUvarint(f.in)
	if err != nil {
		return 0, nil, cut(err)
	}
	if n > largest {
		return 0, nil, fmt.Errorf("a chunk of %d bytes: the file is damaged", n)
	}
	f.chunks++
	// Read as it comes: a length that lies must not cost memory.
	data, err := io.ReadAll(io.LimitReader(f.in, int64(n)))
	if err == nil && uint64(len(data)) < n {
		err = io.ErrUnexpectedEOF
	}
	return kind, data, cut(err)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file is cut off")
	}
	return err
}

// Next reads one entry; io.EOF after the last.
func (f *File) Next() (Entry, error) {
	kind, data, err := f.chunk()
	if err != nil {
		return Entry{}, err
	}
	switch kind {
	case chunkCheckpoint:
		e := Entry{Checkpoint: &engine.Checkpoint{}}
		return e, f.codec.Decode(data, e.Checkpoint)
	case chunkStep, chunkOpen:
		e := Entry{Step: &Step{}}
		r := &reader{rest: data}
		f.codec.read(r, &e.Step.Events)
		if kind == chunkStep {
			e.Step.Answer = &Answer{}
			f.codec.read(r, e.Step.Answer)
		}
		if r.err == nil && len(r.rest) > 0 {
			r.fail("%d bytes are left over", len(r.rest))
		}
		return e, r.err
	case chunkEnd:
		if n, _ := binary.Uvarint(data); n != f.chunks-1 {
			return Entry{}, fmt.Errorf("%d chunks, wanted %d: the file is damaged", f.chunks-1, n)
		}
		return Entry{}, io.EOF
	}
	return Entry{}, fmt.Errorf("a chunk of unknown kind %q: the file is damaged, or newer than this program", kind)
}
