package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	want := Call{Command: Add, ContainerID: "c", Config: json.RawMessage("{\n \"a\": 1\n}")}
	if err := Write(&b, want); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Errorf("a message of %d lines", n)
	}
	var got Call
	if err := Read(&b, &got); err != nil || got.Command != Add || string(got.Config) != `{"a":1}` {
		t.Errorf("%+v %v", got, err)
	}
	if err := Read(&b, &got); !errors.Is(err, io.EOF) {
		t.Errorf("after the message: %v", err)
	}
	if err := Read(strings.NewReader(`{"command":"ADD"`), &got); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut message: %v", err)
	}
	if err := Read(strings.NewReader(strings.Repeat("x", MaxMessage+10)), &got); err == nil {
		t.Error("a message without end was read")
	}
}

func TestErrorIsPrinted(t *testing.T) {
	var b bytes.Buffer
	e := &Error{Code: CodeTryAgain, Msg: "busy", Details: "look there"}
	if err := e.Print(&b, "1.0.0"); err != nil || b.String() != `{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"look there"}`+"\n" {
		t.Errorf("%s %v", b.String(), err)
	}
	if e.Error() != "busy; look there" {
		t.Error(e)
	}
}
