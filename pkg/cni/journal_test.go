package cni

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openJournal(t *testing.T, path string) (*FileJournal, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	j, err := OpenJournal(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() }) // a second Close fails, and does no harm
	return j, &log
}

func TestJournalOutlivesItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "addresses")
	j, _ := openJournal(t, path)
	addr := []netip.Prefix{netip.MustParsePrefix("10.244.1.3/24"), netip.MustParsePrefix("fd00::3/64")}
	for i, since := range []time.Duration{0, -time.Second, -time.Hour, time.Hour} { // held, rests, over, a clock that was set back
		p := Pod{Namespace: "a", Name: "p", UID: fmt.Sprint("u", i)}
		if err := j.Hold(p, Holding{Key: "default", Network: "default", Addresses: addr}); err != nil {
			t.Fatal(err)
		}
		if since != 0 {
			if err := j.Free(p.UID, "default", time.Now().Add(since)); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("free u0 \nhold u9 a/b 10.244.1."); err != nil { // as a loss of power leaves it
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	k, log := openJournal(t, path)
	held, err := k.List()
	if err != nil || len(held) != 3 {
		t.Fatalf("%+v, %v: want what is held and what rests", held, err)
	}
	for _, h := range held {
		if h.Pod.UID == "u2" || h.Pod.String() != "a/p" || fmt.Sprint(h.Addresses) != fmt.Sprint(addr) || (h.Pod.UID == "u0") != h.Freed.IsZero() {
			t.Errorf("%+v", h)
		}
	}
	if n := strings.Count(log.String(), "is left out"); n != 2 {
		t.Errorf("%d lines left out:\n%s", n, log)
	}
}

func TestJournalStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "addresses")
	j, _ := openJournal(t, path)
	for i := range 5000 {
		p := Pod{Namespace: "a", Name: "p", UID: fmt.Sprint("u", i)}
		if err := j.Hold(p, Holding{Key: "default", Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.3/24")}}); err != nil {
			t.Fatal(err)
		}
		if err := j.Free(p.UID, "default", time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n > 4*compactAt {
		t.Errorf("%d lines for nobody", n)
	}
}
