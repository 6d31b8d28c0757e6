// Package durable answers how a small file is replaced so that whoever reads it, after
// a kill or a loss of power at any moment too, finds the old one whole or the new one
// whole. Inputs are a path, a mode and the content; the output is the file, or an error
// and the file as it was.
//
//	.NAME.new: locked ─> written ─> synced ─> renamed to NAME ─> directory synced
//
// Invariants: there is one name beside the file, which begins with a dot and ends in
// .new, so that nobody who lists the directory for files of a kind takes it for one;
// what a kill has left there the next write uses; who writes the same file at the same
// time waits. When Write, Copy or Remove has returned nil, a loss of power changes
// nothing any more.
//
// What it costs is the disk's: two syncs. On a file system in memory, such as /run,
// they are nothing.
package durable

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Write replaces the file with data, or makes it; its directory has to be there.
func Write(path string, mode fs.FileMode, data []byte) error {
	return Copy(path, mode, bytes.NewReader(data))
}

// Copy is Write of all that can be read from content.
func Copy(path string, mode fs.FileMode, content io.Reader) error {
	r := &replacement{path: path, beside: beside(path), mode: mode, content: content}
	for _, step := range r.steps() {
		if err := step(); err != nil {
			return errors.Join(err, r.abandon())
		}
	}
	return nil
}

// Remove removes a file, which may be gone already, and what a kill has left beside it.
func Remove(path string) error {
	for _, name := range []string{path, beside(path)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := syncDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func beside(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
}

// replacement is one file on its way.
type replacement struct {
	path, beside string
	mode         fs.FileMode
	content      io.Reader
	lock         *os.File // of the file beside, from begin to keep
	file         *os.File // the same, to write: closed before it has the name of a program
}

// steps are what a kill can come between.
func (r *replacement) steps() []func() error {
	return []func() error{r.begin, r.fill, r.settle, r.put, r.keep}
}

// begin opens the file beside for this process alone. Where it had to wait for another
// that wrote, the name is that one's no more: it looks again.
func (r *replacement) begin() error {
	for {
		f, err := os.OpenFile(r.beside, os.O_RDONLY|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		mine, err := locked(f)
		if mine {
			r.lock = f
			r.file, err = os.OpenFile(r.beside, os.O_WRONLY|os.O_TRUNC, 0o600)
			return err
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// locked waits for the file's lock, which ends with the process, and tells whether
// the file still has its name then.
func locked(f *os.File) (bool, error) {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EINTR) {
			return false, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
	}
	here, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(here, there), err
}

func (r *replacement) fill() error {
	_, err := io.Copy(r.file, r.content)
	return errors.Join(err, r.file.Chmod(r.mode))
}

// settle comes before put: a name must not be on the disk before what it names.
func (r *replacement) settle() error {
	err := errors.Join(r.file.Sync(), r.file.Close())
	r.file = nil
	return err
}

func (r *replacement) put() error { return os.Rename(r.beside, r.path) }

func (r *replacement) keep() error {
	err := r.lock.Close()
	r.lock = nil
	return errors.Join(err, syncDir(filepath.Dir(r.path)))
}

// abandon takes away what was begun.
func (r *replacement) abandon() error {
	if r.lock == nil {
		return nil // not begun, or put
	}
	err := errors.Join(os.Remove(r.beside), r.lock.Close())
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	return err
}

// Sweep removes what kills have left beside the files of a directory, in which nobody
// may be writing: for directories whose files are each written a few times.
func Sweep(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if name := e.Name(); strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".new") {
			errs = append(errs, os.Remove(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
