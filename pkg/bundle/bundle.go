// Package bundle writes what is known of a cluster into one file that can be
// given away: every part goes through Redact, so no token, key or password does.
//
//	part(name, reader) ──Redact──> tar ──gzip──> file
//
// A part that cannot be had becomes NAME.error with the reason: a bundle of a
// broken cluster is when one wants it.
package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"regexp"
	"time"
)

// maxPart bounds one part, in bytes; what is longer is cut at its beginning, since
// logs say most at their end.
const maxPart = 64 << 20

// Writer writes a bundle. It is for one goroutine.
type Writer struct {
	zip  *gzip.Writer
	tar  *tar.Writer
	root string // directory that all parts are in
	now  time.Time
	// Parts and Errors count what was written.
	Parts, Errors int
}

// New begins a bundle whose parts are in the directory root.
func New(w io.Writer, root string, now time.Time) *Writer {
	z := gzip.NewWriter(w)
	return &Writer{zip: z, tar: tar.NewWriter(z), root: root, now: now}
}

// Add reads a part to its end, and writes it without its secrets.
func (w *Writer) Add(name string, open func() (io.ReadCloser, error)) error {
	text, err := read(open)
	if err != nil {
		w.Errors++
		name, text = name+".error", []byte(err.Error()+"\n")
	}
	return w.write(name, text)
}

func read(open func() (io.ReadCloser, error)) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if len(text) > maxPart {
		text = append([]byte("… cut …\n"), text[len(text)-maxPart:]...)
	}
	return text, err
}

func (w *Writer) write(name string, text []byte) error {
	if sealed(text) {
		w.Errors++
		name, text = name+".error", []byte("it is compressed and has a secret in it: left out\n")
	}
	if !compressed(text) {
		text = Redact(text)
	}
	w.Parts++
	err := w.tar.WriteHeader(&tar.Header{
		Name: w.root + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: w.now, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
	})
	if err != nil {
		return fmt.Errorf("bundle: %s: %w", name, err)
	}
	_, err = w.tar.Write(text)
	return err
}

// compressed tells gzip's own text, which must stay as it is to be read again.
func compressed(text []byte) bool { return bytes.HasPrefix(text, []byte{0x1f, 0x8b}) }

// sealed reports whether a compressed part has something that Redact would take out.
func sealed(text []byte) bool {
	if !compressed(text) {
		return false
	}
	z, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return false // not gzip after all
	}
	inner, _ := io.ReadAll(io.LimitReader(z, maxPart)) // what can be read of it counts
	return !bytes.Equal(inner, Redact(inner))
}

// Close ends the bundle.
func (w *Writer) Close() error {
	if err := w.tar.Close(); err != nil {
		return err
	}
	return w.zip.Close()
}

// removed stands where a secret was.
const removed = "[removed]"

// secret is a pattern; the part of it that is kept is its first group.
type secret struct {
	pattern *regexp.Regexp
	with    string
}

// secrets are the forms that keys to a cluster have.
func secrets() []secret {
	return []secret{
		// PEM, also with its newlines escaped as JSON does.
		{regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)-----END [A-Z ]*PRIVATE KEY-----`), removed},
		// A key whose end is not there is cut to the end of the text.
		{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*`), removed},
		// JSON web tokens: header and claims begin with {" in base64.
		{regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`), removed},
		{regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?(?:bearer|basic)\s+)[^\s"']+`), "${1}" + removed},
		{regexp.MustCompile(`(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{16,}`), "${1}" + removed},
		// Fields of kubeconfigs and Secrets.
		{regexp.MustCompile(`(?i)(["']?(?:client-key-data|client-secret|password|passwd|secret-key|token)["']?\s*[:=]\s*["']?)[^\s"',}]+`), "${1}" + removed},
	}
}

// Redact takes out what opens something: private keys, tokens, passwords.
// Names of files that hold them stay.
func Redact(text []byte) []byte {
	for _, s := range secrets() {
		text = s.pattern.ReplaceAll(text, []byte(s.with))
	}
	return text
}
