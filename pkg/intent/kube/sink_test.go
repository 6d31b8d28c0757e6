package kube

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// recordingSink keeps what it was told, and wakes those who wait for a state.
type recordingSink struct {
	mu      sync.Mutex // guards what follows
	objects map[intent.Key]intent.Object
	synced  map[Source]int // number of objects when the source was synced
	bad     map[intent.Key]string
	changed chan struct{}
	t       *testing.T
}

func newRecordingSink(t *testing.T) *recordingSink {
	return &recordingSink{
		objects: map[intent.Key]intent.Object{}, synced: map[Source]int{}, bad: map[intent.Key]string{},
		changed: make(chan struct{}), t: t,
	}
}

func (s *recordingSink) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *recordingSink) Put(o intent.Object)  { s.do(func() { s.objects[o.Key()] = o }) }
func (s *recordingSink) Delete(k intent.Key)  { s.do(func() { delete(s.objects, k) }) }
func (s *recordingSink) Synced(source Source) { s.do(func() { s.synced[source] = len(s.objects) }) }

func (s *recordingSink) problems(k intent.Key, list []rows.Problem) {
	s.do(func() {
		delete(s.bad, k)
		for _, p := range list {
			s.bad[k] += p.Field + ": " + p.Message + "\n"
		}
	})
}

// wait waits until ok holds.
func (s *recordingSink) wait(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("never came: %s; have %v, problems %v", what, s.keys(), s.bad)
		}
	}
}

func (s *recordingSink) keys() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, k := range sortedKeys(s.objects) {
		out = append(out, k.String())
	}
	return strings.Join(out, " ")
}

func (s *recordingSink) has(keys string) func() bool {
	return func() bool {
		var out []string
		for _, k := range sortedKeys(s.objects) {
			out = append(out, k.String())
		}
		return strings.Join(out, " ") == keys
	}
}

// running runs f until the test ends, and waits for its end.
func running(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}
