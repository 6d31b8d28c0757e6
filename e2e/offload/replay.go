package offload

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// event is a line of cmd/test2json.
type event struct {
	Action string
	Test   string
	Output string
}

// standIn is the test of this machine that stands for one in the guest.
type standIn interface {
	Output() io.Writer
	Fail()
	SkipNow()
	sub(name string, fn func(standIn))
}

// events reads a stream of events.
type events struct {
	lines *bufio.Reader
	// ended is how the tests in the guest ended as a whole: pass, fail, or empty while they have not.
	ended string
}

func newEvents(r io.Reader) *events { return &events{lines: bufio.NewReader(r)} }

// next gives the next event, "" as its action at the end of the stream.
func (e *events) next() (event, error) {
	line, err := e.lines.ReadBytes('\n')
	if len(line) == 0 && errors.Is(err, io.EOF) {
		return event{}, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return event{}, err
	}
	var ev event
	if err := json.Unmarshal(line, &ev); err != nil {
		return event{}, fmt.Errorf("not an event: %q: %w", line, err)
	}
	if ev.Test == "" && (ev.Action == "pass" || ev.Action == "fail") {
		e.ended = ev.Action
	}
	return ev, nil
}

// replay passes the events of a test on to its stand-in, up to the test's end.
// name is the test's in the guest, empty for all of them together. Tests in the
// guest run one after the other, so that each event is of the test that began
// last, or of one around it.
func (e *events) replay(t standIn, name string) error {
	for {
		ev, err := e.next()
		switch {
		case err != nil:
			return err
		case ev.Action == "" && name != "":
			return fmt.Errorf("the guest ended in %s", name)
		case ev.Action == "":
			return nil
		case ev.Action == "run" && within(ev.Test, name):
			var inner error
			t.sub(strings.TrimPrefix(ev.Test[len(name):], "/"), func(t standIn) {
				if inner = e.replay(t, ev.Test); inner != nil {
					t.Fail()
				}
			})
			if inner != nil {
				return inner
			}
		case ev.Action == "output" && (ev.Test == name || name == "") && !framing(ev.Output):
			io.WriteString(t.Output(), ev.Output)
		case ev.Test == name && name != "" && ends(ev.Action):
			finish(t, ev.Action)
			return nil
		}
	}
}

func within(test, name string) bool { return name == "" || strings.HasPrefix(test, name+"/") }

func ends(action string) bool { return action == "pass" || action == "fail" || action == "skip" }

func finish(t standIn, action string) {
	switch action {
	case "fail":
		t.Fail()
	case "skip":
		t.SkipNow()
	}
}

// framing is what go test prints about a test; the test that stands for it has its own.
func framing(line string) bool {
	trimmed := strings.TrimLeft(line, " ")
	for _, p := range []string{"=== ", "--- PASS", "--- FAIL", "--- SKIP"} {
		if strings.HasPrefix(trimmed, p) {
			return true
		}
	}
	return false
}
