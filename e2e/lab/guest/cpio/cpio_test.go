package cpio

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestLayoutIsNewc(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	w.Dir("modules")
	w.File("init", []byte("hello"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	if b.Len()%4 != 0 || strings.Count(text, "070701") != 3 || !strings.Contains(text, "hello\x00\x00\x00070701") {
		t.Errorf("%d bytes: %q", b.Len(), text)
	}
	// Mode, size and length of the name of the second entry, as the format places them.
	second := text[strings.LastIndex(text[:strings.Index(text, "hello")], "070701"):]
	if second[14:22] != "000081ED" || second[54:62] != "00000005" || second[94:102] != "00000005" {
		t.Errorf("second entry %q", second[:110])
	}
}

type full struct{}

var errFull = errors.New("full")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestTheFirstErrorIsKept(t *testing.T) {
	w := NewWriter(full{})
	w.Dir("d")
	w.File("f", nil)
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
