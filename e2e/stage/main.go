// Command stage runs the stages of `make test` one after the other, each within
// its budget, and says at the end what passed, what failed, what was skipped and
// how long each took.
//
//	stage [-budget 60m] 'NAME BUDGET COMMAND…' …
//
//	stage ──bash -c──> command ──stdout──> test events (go test -json): counted, failures printed
//	                                   └─> other lines: printed as they are
//
// Up to three tests of a stage that fail are run once more, alone: the command runs again
// with AGAIN, a pattern for -run, in its environment. What passes then is told as unsteady, in the
// stage's verdict and in the summary, and is to be looked into; it fails nothing.
// A stage fails when its command does, or outgrows its budget: then its process
// group gets SIGTERM, and SIGKILL ten seconds later. The stages after it still
// run: one run shows all that is wrong. An interrupt ends the stage under way,
// prints what is known, and exits 130. What suites have written to the file
// PORTOLAN_REPORT stands at the end of the summary. The last line is "N passed, N failed";
// tests are counted without their parents, and a stage that runs no tests is one.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	budget := flag.Duration("budget", 0, "of all stages together; 0: the sum of theirs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, *budget, flag.Args()))
}

// run gives the exit code: 0, 1 for a failure, 2 for a wrong call, 130 when interrupted.
func run(ctx context.Context, budget time.Duration, args []string) int {
	var stages []stage
	for _, a := range args {
		s, err := parseStage(a)
		if err != nil {
			fmt.Fprintln(os.Stderr, "stage:", err)
			return 2
		}
		stages = append(stages, s)
	}
	report, forget := reportFile()
	defer forget()
	r := runner{out: os.Stdout, grace: 10 * time.Second}
	results := r.all(ctx, budget, stages)
	table, _ := os.ReadFile(report)
	code := summary(os.Stdout, results, string(table))
	if ctx.Err() != nil {
		return 130
	}
	return code
}

// reportEnv names the file to which suites add what the summary prints at its end.
const reportEnv = "PORTOLAN_REPORT"

// reportFile makes that file and names it to the stages; forget removes it.
func reportFile() (name string, forget func()) {
	f, err := os.CreateTemp("", "portolan-report-")
	if err != nil {
		return "", func() {}
	}
	defer f.Close()
	if os.Setenv(reportEnv, f.Name()) != nil {
		return "", func() {}
	}
	return f.Name(), func() { _ = os.Remove(f.Name()) }
}
