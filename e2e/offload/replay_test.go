package offload

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// recorder is a stand-in that writes down what was done to it.
type recorder struct {
	name string
	log  *strings.Builder
}

func (r recorder) Output() io.Writer { return r.log }
func (r recorder) Fail()             { fmt.Fprintf(r.log, "[%s failed]", r.name) }
func (r recorder) SkipNow()          { fmt.Fprintf(r.log, "[%s skipped]", r.name) }
func (r recorder) sub(name string, fn func(standIn)) {
	fmt.Fprintf(r.log, "(%s ", name)
	fn(recorder{name, r.log})
	fmt.Fprint(r.log, ")")
}

const stream = `{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/One"}
{"Action":"output","Test":"TestA/One","Output":"    a_test.go:1: hello "}
{"Action":"output","Test":"TestA/One","Output":"    --- PASS: TestA/One (0.00s)\n"}
{"Action":"pass","Test":"TestA/One","Elapsed":0}
{"Action":"run","Test":"TestA/Two"}
{"Action":"skip","Test":"TestA/Two","Elapsed":0}
{"Action":"output","Test":"TestA","Output":"after "}
{"Action":"fail","Test":"TestA","Elapsed":1.5}
{"Action":"run","Test":"TestB"}
{"Action":"pass","Test":"TestB","Elapsed":0}
{"Action":"output","Output":"FAIL\n"}
{"Action":"fail","Elapsed":2}
`

func replayed(text string) (string, string, error) {
	var log strings.Builder
	e := newEvents(strings.NewReader(text))
	err := e.replay(recorder{"all", &log}, "")
	return log.String(), e.ended, err
}

func TestEventsBecomeSubtests(t *testing.T) {
	got, ended, err := replayed(stream)
	if err != nil || ended != "fail" {
		t.Errorf("ended %q, %v", ended, err)
	}
	want := "(TestA (One     a_test.go:1: hello )(Two [Two skipped])after [TestA failed])(TestB )FAIL\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestAGuestThatEndsFailsWhatRan(t *testing.T) {
	cut := stream[:strings.Index(stream, `{"Action":"pass","Test":"TestA/One"`)]
	got, ended, err := replayed(cut)
	if err == nil || !strings.Contains(err.Error(), "the guest ended in TestA/One") || ended != "" {
		t.Errorf("ended %q, %v", ended, err)
	}
	if !strings.Contains(got, "[One failed]") || !strings.Contains(got, "[TestA failed]") {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsNoEventIsAnError(t *testing.T) {
	if _, _, err := replayed("panic: x\n"); err == nil || !strings.Contains(err.Error(), "not an event") {
		t.Errorf("got %v", err)
	}
}
