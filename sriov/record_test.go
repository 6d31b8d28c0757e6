package sriov_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/portolan-cni/portolan/sriov"
)

// TestRecordsOfOthers: what another process writes, replaces and removes is seen at once.
func TestRecordsOfOthers(t *testing.T) {
	w := newWorld(t, "connectx-6")
	mine := w.keeper
	w.start() // another one of the same directory
	phases := func() (out string) {
		records, err := mine.Records()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			out += fmt.Sprintf("%s %s %s;", r.Device, r.Owner.Sandbox, r.Phase)
		}
		return out
	}
	if got := phases(); got != "" {
		t.Error(got)
	}
	for n := range 20 {
		a := w.wish("0000:3b:00.2", fmt.Sprint("pod", n))
		w.attach(a)
		if got, want := phases(), fmt.Sprintf("0000:3b:00.2 %s attached;", a.Owner.Sandbox); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		w.release(a)
		if got := phases(); got != "" {
			t.Error(got)
		}
	}
}

// BenchmarkRecords lists what 256 pods have.
func BenchmarkRecords(b *testing.B) {
	w := newWorld(b, "connectx-6")
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	text, err := os.ReadFile(filepath.Join(w.dir, "0000:3b:00.2.json"))
	if err != nil {
		b.Fatal(err)
	}
	for n := range 256 {
		id := fmt.Sprintf("soft-b-%d", n)
		if err := os.WriteFile(filepath.Join(w.dir, id+".json"), bytes.ReplaceAll(text, []byte("0000:3b:00.2"), []byte(id)), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	var records []sriov.Record
	for b.Loop() {
		if records, err = w.keeper.Records(); err != nil {
			b.Fatal(err)
		}
	}
	if len(records) != 257 {
		b.Errorf("%d records", len(records))
	}
}
