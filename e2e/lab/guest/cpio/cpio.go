// Package cpio writes the archives that Linux unpacks as its first root: format
// newc (Documentation/driver-api/early-userspace/buffer-format.rst). Several
// archives may follow one another.
package cpio

import (
	"fmt"
	"io"
)

// Writer writes one archive. Directories come before what is in them.
type Writer struct {
	w     io.Writer
	inode int
	err   error // of the first write that failed; all later ones do nothing
}

// NewWriter begins an archive.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

// Dir adds a directory.
func (w *Writer) Dir(name string) { w.entry(name, modeDir|0o755, nil) }

// File adds a file that may be executed.
func (w *Writer) File(name string, content []byte) { w.entry(name, modeFile|0o755, content) }

// Close ends the archive, and gives the first error.
func (w *Writer) Close() error {
	w.entry("TRAILER!!!", 0, nil)
	return w.err
}

// entry writes header, name and content, each padded to four bytes. Times and
// owners are 0, so that the same content is the same archive.
func (w *Writer) entry(name string, mode int, content []byte) {
	if w.err != nil {
		return
	}
	w.inode++
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		w.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	w.write([]byte(head + name + "\x00" + padding(len(head)+len(name)+1)))
	w.write(content)
	w.write([]byte(padding(len(content))))
}

func (w *Writer) write(p []byte) {
	if w.err == nil {
		_, w.err = w.w.Write(p)
	}
}

func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }
