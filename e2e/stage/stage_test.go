package main

import (
	"bufio"
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

func runAll(t *testing.T, budget time.Duration, args ...string) (string, int, []result) {
	t.Helper()
	var stages []stage
	for _, a := range args {
		s, err := parseStage(a)
		if err != nil {
			t.Fatal(err)
		}
		stages = append(stages, s)
	}
	var out bytes.Buffer
	results := runner{out: &out, grace: time.Second}.all(context.Background(), budget, stages)
	return out.String(), summary(&out, results, ""), results
}

func TestStagesRunOnAfterAFailure(t *testing.T) {
	out, code, results := runAll(t, 0, "one 5s false", "two 5s echo second")
	if code != 1 || results[0].err == nil || results[1].err != nil || !strings.Contains(out, "second\n") {
		t.Errorf("exit code %d, results %v, output:\n%s", code, results, out)
	}
}

func TestStageOverItsBudgetIsEnded(t *testing.T) {
	start := time.Now()
	_, code, results := runAll(t, 0, "slow 300ms sleep 60 & sleep 60")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s, wanted it ended at its budget", took)
	}
	if code != 1 || results[0].err == nil || !strings.Contains(results[0].err.Error(), "over its budget") {
		t.Errorf("exit code %d, error %v", code, results[0].err)
	}
}

func TestTotalBudgetLeavesStagesOut(t *testing.T) {
	_, code, results := runAll(t, 200*time.Millisecond, "slow 1m sleep 60", "next 1m true")
	if code != 1 || results[1].err == nil || !strings.Contains(results[1].err.Error(), "not run") {
		t.Errorf("exit code %d, error of the second %v", code, results[1].err)
	}
}

func TestLeftProcessesAreAFailure(t *testing.T) {
	_, code, results := runAll(t, 0, "leaves 5s sleep 60 >/dev/null 2>&1 & true")
	if code != 1 || results[0].err == nil {
		t.Errorf("exit code %d, wanted a failure for a process left behind", code)
	}
}

func TestFailedTestsRunAgain(t *testing.T) {
	const fails = `echo '{"Action":"run","Package":"p","Test":"TestA"}'; echo '{"Action":"%s","Package":"p","Test":"TestA"}'; `
	say := func(action string) string { return strings.ReplaceAll(fails, "%s", action) }
	once := "flaky 5s if [ -z \"$AGAIN\" ]; then " + say("fail") + "false; else [ \"$AGAIN\" = '^(TestA)\\b' ] && " + say("pass") + "fi"
	out, code, results := runAll(t, 0, once)
	if code != 0 || results[0].err != nil || !strings.Contains(out, "UNSTEADY: TestA") || !strings.Contains(out, "1 passed, 0 failed") && results[0].tests.passed != 1 {
		t.Errorf("exit code %d, results %+v, output:\n%s", code, results[0], out)
	}
	for name, command := range map[string]string{
		"twice":         say("fail") + "false",
		"nothing again": "if [ -z \"$AGAIN\" ]; then " + say("fail") + "false; fi",
		"four":          strings.ReplaceAll(say("fail")+say("fail")+say("fail")+say("fail"), "&", "") + "[ -n \"$AGAIN\" ]",
		"no test":       "false",
	} {
		if out, code, results := runAll(t, 0, "s 5s "+command); code != 1 || results[0].err == nil {
			t.Errorf("%s: exit code %d, error %v, output:\n%s", name, code, results[0].err, out)
		}
	}
}

func TestWrongStages(t *testing.T) {
	for _, s := range []string{"", "name", "name 5m", "name soon true", "name -5m true"} {
		if got, err := parseStage(s); err == nil {
			t.Errorf("%q gave %v, wanted an error", s, got)
		}
	}
}

const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"output","Package":"p","Test":"TestA/one","Output":"    a_test.go:1: broken\n"}
{"Action":"fail","Package":"p","Test":"TestA/one"}
{"Action":"run","Package":"p","Test":"TestA/two"}
{"Action":"output","Package":"p","Test":"TestA/two","Output":"not shown\n"}
{"Action":"pass","Package":"p","Test":"TestA/two"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:9: needs root\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p","Elapsed":0.5}
plain text
{"Action":"build-output","ImportPath":"q","Output":"q.go:1: undefined: x\n"}
{"Action":"fail","Package":"q","FailedBuild":"q"}
`

func TestTally(t *testing.T) {
	var out bytes.Buffer
	c := tally{out: &out}
	c.read(bufio.NewReader(strings.NewReader(events)))
	if c.passed != 1 || c.failed != 2 || len(c.skipped) != 1 {
		t.Errorf("passed %d, failed %d, skipped %v; wanted 1, 2 and one", c.passed, c.failed, c.skipped)
	}
	if want := "p TestB: b_test.go:9: needs root"; len(c.skipped) == 1 && c.skipped[0] != want {
		t.Errorf("skipped %q, wanted %q", c.skipped[0], want)
	}
	for _, want := range []string{"broken", "plain text\n", "undefined: x", "FAIL  p 0.5s\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "not shown") {
		t.Errorf("output of a passed test is shown:\n%s", out.String())
	}
}

func TestSummaryEndsWithTheCount(t *testing.T) {
	var out bytes.Buffer
	code := summary(&out, []result{{stage: stage{name: "lint"}}, {stage: stage{name: "unit"}, tests: tally{passed: 3}}}, "fault  lost\nkill   0\n")
	if code != 0 || !strings.HasSuffix(out.String(), "\nfault  lost\nkill   0\n4 passed, 0 failed\n") {
		t.Errorf("exit code %d, output:\n%s", code, out.String())
	}
}
