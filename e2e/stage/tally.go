package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// tally counts test events and prints what is worth reading of them.
type tally struct {
	passed, failed int
	skipped        []string // "package test: reason"
	broken         bool     // a package failed without a test that did
	names          []string // of tests that failed, without their subtests
	out            io.Writer
	output         map[test][]string // of tests that have not ended
	parents        map[test]bool     // tests that have subtests are not counted themselves
}

// test names one test; Name "" is the package as a whole.
type test struct{ Package, Name string }

// event is a line of go test -json, as cmd/test2json documents it.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Output      string
	Elapsed     float64 // seconds
	FailedBuild string
}

// read takes lines to the end. A line that is no event is printed as it is.
func (t *tally) read(r *bufio.Reader) {
	t.output, t.parents = map[test][]string{}, map[test]bool{}
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			t.line(line)
		}
		if err != nil {
			return
		}
	}
}

func (t *tally) line(line []byte) {
	var e event
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil || e.Action == "" {
		t.out.Write(line)
		return
	}
	k := test{e.Package, e.Test}
	switch e.Action {
	case "run":
		if i := strings.LastIndex(e.Test, "/"); i >= 0 {
			t.parents[test{e.Package, e.Test[:i]}] = true
		}
	case "output":
		t.output[k] = append(t.output[k], e.Output)
	case "build-output":
		io.WriteString(t.out, e.Output)
	case "pass", "fail", "skip":
		t.end(k, e)
	}
}

// end counts a test that has ended, and prints the output of one that failed.
func (t *tally) end(k test, e event) {
	lines := t.output[k]
	delete(t.output, k)
	if k.Name == "" {
		t.endPackage(k, e, lines)
		return
	}
	counted := !t.parents[k]
	switch {
	case e.Action == "fail":
		for _, l := range lines {
			io.WriteString(t.out, l)
		}
		if counted {
			t.failed++
		}
		if name, _, sub := strings.Cut(k.Name, "/"); !sub {
			t.names = append(t.names, name)
		}
	case e.Action == "skip":
		t.skipped = append(t.skipped, fmt.Sprintf("%s %s: %s", k.Package, k.Name, reason(lines)))
	case counted:
		t.passed++
	}
}

// endPackage prints one line for a package. One that fails without a failed test
// did not compile, or ended early: its output says why, and it counts as one.
func (t *tally) endPackage(k test, e event, lines []string) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(t.out, "ok    %s %.1fs\n", k.Package, e.Elapsed)
	case "fail":
		for unfinished, more := range t.output {
			if unfinished.Package == k.Package {
				lines = append(lines, more...)
				delete(t.output, unfinished)
			}
		}
		for _, l := range lines {
			io.WriteString(t.out, l)
		}
		fmt.Fprintf(t.out, "FAIL  %s %.1fs\n", k.Package, e.Elapsed)
		if t.failed == 0 || e.FailedBuild != "" {
			t.failed++
			t.broken = true
		}
	}
}

// fewTests that fail may have had bad luck: the machine was busy. More are a fault.
const fewTests = 3

// again lists the tests that may be run once more; none where more is wrong than that.
func (t *tally) again() []string {
	if t.broken || len(t.names) > fewTests || slices.ContainsFunc(t.names, func(n string) bool { return !strings.HasPrefix(n, "Test") }) {
		return nil
	}
	return t.names
}

// reason is what a test said before it skipped: its output without the frame.
func reason(lines []string) string {
	var out []string
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if l != "" && !strings.HasPrefix(l, "=== ") && !strings.HasPrefix(l, "--- ") {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		return "no reason given"
	}
	return strings.Join(out, " ")
}

// summary prints the table, the suites' report and the last line, and gives the exit code.
func summary(w io.Writer, results []result, report string) int {
	var skipped []string
	passed, failed := 0, 0
	fmt.Fprintf(w, "\n%-12s %-7s %9s %9s %7s %7s %7s\n", "stage", "result", "elapsed", "budget", "passed", "failed", "skipped")
	for _, r := range results {
		verdict, p, f := "passed", r.tests.passed, r.tests.failed
		if r.err != nil {
			verdict = "FAILED"
		}
		fmt.Fprintf(w, "%-12s %-7s %9s %9s %7d %7d %7d\n", r.name, verdict, round(r.elapsed), round(r.budget), p, f, len(r.tests.skipped))
		switch {
		case r.err != nil && f == 0:
			f = 1
		case p+f == 0:
			p = 1
		}
		passed, failed = passed+p, failed+f
		skipped = append(skipped, r.tests.skipped...)
	}
	slices.Sort(skipped)
	for _, s := range skipped {
		fmt.Fprintln(w, "skipped:", s)
	}
	for _, r := range results {
		for _, name := range r.unsteady {
			fmt.Fprintf(w, "unsteady: %s: %s failed, and passed when it ran again\n", r.name, name)
		}
		if r.err != nil {
			fmt.Fprintf(w, "failed: %s: %v\n", r.name, r.err)
		}
	}
	if report != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimRight(report, "\n"))
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1
	}
	return 0
}
