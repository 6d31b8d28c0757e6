package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// WatchDir takes intent from the YAML files of a directory in place of the API
// server (decision 34). A file that cannot be read or decoded keeps the objects it
// last had in force. An object in two files is taken from the first by name, and
// is a Problem.
type WatchDir struct {
	Dir      string
	Sink     Sink
	Problems ProblemFunc // may be nil
	Zoning   Zoning
	Interval time.Duration // between looks; 0: 1 s

	files map[string]*file // by name
	known map[intent.Key]intent.Object
	bad   map[intent.Key]bool // keys last reported with Problems
}

// file is what a file held when it was last read.
type file struct {
	size     int64
	modified time.Time
	objects  []intent.Object
	problems []rows.Problem
}

// Run follows the directory until ctx ends. It fails at once if the directory
// cannot be read, and later never.
func (w *WatchDir) Run(ctx context.Context) error {
	if _, err := os.ReadDir(w.Dir); err != nil {
		return fmt.Errorf("intent directory: %w", err)
	}
	w.files, w.known, w.bad = map[string]*file{}, map[intent.Key]intent.Object{}, map[intent.Key]bool{}
	interval := w.Interval
	if interval == 0 {
		interval = time.Second
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	w.look()
	w.Sink.Synced(Directory)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			w.look()
		}
	}
}

// look reads what has changed since the last look and tells the Sink.
func (w *WatchDir) look() {
	entries, err := os.ReadDir(w.Dir)
	if err != nil {
		return // fail static: the directory may be in the middle of being replaced
	}
	seen := map[string]bool{}
	changed := false
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		seen[e.Name()] = true
		changed = w.read(e.Name()) || changed
	}
	for name := range w.files {
		if !seen[name] {
			delete(w.files, name)
			changed = true
		}
	}
	if changed {
		w.tell()
	}
}

// read reads a file if its size or time has changed, and says whether it has.
func (w *WatchDir) read(name string) bool {
	path := filepath.Join(w.Dir, name)
	info, err := os.Stat(path) // follows links: a mounted ConfigMap is made of them
	old := w.files[name]
	if err == nil && old != nil && old.size == info.Size() && old.modified.Equal(info.ModTime()) || errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if old == nil {
		old = &file{}
		w.files[name] = old
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		unread := []rows.Problem{{Object: name, Severity: rows.Error, Message: err.Error() + "; what it last held stays in force"}}
		again := slices.Equal(old.problems, unread)
		old.problems, old.modified = unread, time.Time{}
		return !again
	}
	objects, problems := DecodeZoned(data, w.Zoning)
	old.size, old.modified, old.problems = info.Size(), info.ModTime(), problems
	if !slices.ContainsFunc(problems, undecoded) {
		old.objects = objects
	}
	return true
}

// undecoded tells whether a Problem is of a whole document, whose objects are
// unknown, and not of an object's field.
func undecoded(p rows.Problem) bool {
	_, ok := intent.ParseKey(p.Object)
	return !ok && p.Severity == rows.Error
}

// tell brings the Sink from what it knows to what the files hold.
func (w *WatchDir) tell() {
	now := map[intent.Key]intent.Object{}
	from := map[intent.Key]string{}
	problems := map[intent.Key][]rows.Problem{}
	for _, name := range slices.Sorted(maps.Keys(w.files)) {
		f := w.files[name]
		for _, p := range f.problems {
			key, ok := intent.ParseKey(p.Object)
			if !ok {
				key = intent.Key{Kind: "File", Name: name}
				p.Field, p.Object = p.Object, key.String()
			}
			problems[key] = append(problems[key], p)
		}
		for _, o := range f.objects {
			key := o.Key()
			if other, twice := from[key]; twice {
				problems[key] = append(problems[key], rows.Problem{
					Object: key.String(), Severity: rows.Error,
					Message: fmt.Sprintf("is in %s and in %s; the first holds: remove one", other, name),
				})
				continue
			}
			now[key], from[key] = o, name
		}
	}
	w.report(problems)
	for _, key := range sortedKeys(w.known) {
		if now[key] == nil {
			w.Sink.Delete(key)
		}
	}
	for _, key := range sortedKeys(now) {
		if old := w.known[key]; old == nil || !old.Equal(now[key]) {
			w.Sink.Put(now[key])
		}
	}
	w.known = now
}

// report gives the Problems of each object that has some or had some.
func (w *WatchDir) report(problems map[intent.Key][]rows.Problem) {
	if w.Problems == nil {
		return
	}
	for _, key := range sortedKeys(w.bad) {
		if len(problems[key]) == 0 {
			w.Problems(key, nil)
		}
	}
	w.bad = map[intent.Key]bool{}
	for _, key := range sortedKeys(problems) {
		w.Problems(key, problems[key])
		w.bad[key] = true
	}
}

func sortedKeys[V any](m map[intent.Key]V) []intent.Key {
	return slices.SortedFunc(maps.Keys(m), intent.Key.Compare)
}
