package link

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestFramesComeBackWholeAndInOrder(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	long := strings.Repeat("x", maxFrame+7)
	for _, err := range []error{
		w.JSON(KindBooted, Booted{Kernel: "6.12"}), w.Bytes(KindStdout, []byte("a")), w.Bytes(KindStderr, nil), w.Bytes(KindStdout, []byte(long)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []struct {
		kind Kind
		size int
	}{{KindBooted, len(`{"Kernel":"6.12","Uptime":0}`)}, {KindStdout, 1}, {KindStderr, 0}, {KindStdout, maxFrame}, {KindStdout, 7}}
	for _, x := range want {
		k, p, err := Read(&b)
		if err != nil || k != x.kind || len(p) != x.size {
			t.Fatalf("kind %q, %d bytes, %v; want %q, %d", k, len(p), err, x.kind, x.size)
		}
	}
	if _, _, err := Read(&b); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func TestHalfAFrameAndGarbageAreErrors(t *testing.T) {
	if _, _, err := Read(strings.NewReader("o\x00\x00\x00\x05ab")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a frame: %v", err)
	}
	if _, _, err := Read(strings.NewReader("o\x00\x00\x00\x05")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a frame without its bytes: %v", err)
	}
	if _, _, err := Read(strings.NewReader("login: please")); err == nil || !strings.Contains(err.Error(), "no link") {
		t.Errorf("garbage: %v", err)
	}
}

func TestAnEmptyWriteIsNoFrame(t *testing.T) {
	var b bytes.Buffer
	if n, err := NewWriter(&b).Stream(KindStdout).Write(nil); n != 0 || err != nil || b.Len() != 0 {
		t.Errorf("%d, %v, %d bytes", n, err, b.Len())
	}
}
