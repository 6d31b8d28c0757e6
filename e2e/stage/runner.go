package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// stage is one command with its budget.
type stage struct {
	name    string
	budget  time.Duration
	command string // for bash -c
	env     []string
}

// againEnv names the tests, as go test's -run does, that a stage is to run of all its own.
const againEnv = "AGAIN"

// parseStage reads "NAME BUDGET COMMAND…".
func parseStage(s string) (stage, error) {
	f := strings.Fields(s)
	if len(f) < 3 {
		return stage{}, fmt.Errorf("%q: wanted NAME BUDGET COMMAND…", s)
	}
	budget, err := time.ParseDuration(f[1])
	if err != nil || budget <= 0 {
		return stage{}, fmt.Errorf("%q: %q is no budget: wanted a duration such as 5m", s, f[1])
	}
	return stage{name: f[0], budget: budget, command: strings.Join(f[2:], " ")}, nil
}

// result is how a stage went.
type result struct {
	stage
	elapsed time.Duration
	err     error // nil: it passed
	tests   tally
	// unsteady are tests that failed, and passed when they ran again.
	unsteady []string
}

// runner runs stages.
type runner struct {
	out   io.Writer
	grace time.Duration // between SIGTERM and SIGKILL
}

// all runs the stages in order. Once the total budget (0: none) is used up, or
// ctx is done, those left are failures that were not run.
func (r runner) all(ctx context.Context, budget time.Duration, stages []stage) []result {
	start := time.Now()
	var out []result
	for i, s := range stages {
		used := time.Since(start)
		if err := ctx.Err(); err != nil {
			out = append(out, result{stage: s, err: errors.New("not run: interrupted")})
			continue
		}
		if budget > 0 && used >= budget {
			out = append(out, result{stage: s, err: fmt.Errorf("not run: the budget of %s is used up", budget)})
			continue
		}
		if budget > 0 {
			s.budget = min(s.budget, budget-used)
		}
		fmt.Fprintf(r.out, "\n=== %d/%d %s: budget %s, %s gone by\n", i+1, len(stages), s.name, round(s.budget), round(used))
		res := r.one(ctx, s)
		if names := res.tests.again(); ctx.Err() == nil && res.err != nil && len(names) > 0 {
			if budget > 0 {
				s.budget = min(s.budget, budget-time.Since(start))
			}
			res = r.again(ctx, s, res, names)
		}
		verdict := "passed"
		switch {
		case res.err != nil:
			verdict = "FAILED: " + res.err.Error()
		case len(res.unsteady) > 0:
			verdict = "passed, UNSTEADY: " + strings.Join(res.unsteady, ", ")
		}
		fmt.Fprintf(r.out, "=== %s %s after %s\n", s.name, verdict, round(res.elapsed))
		out = append(out, res)
	}
	return out
}

// again runs the tests of a stage once more that have failed, and no others. What fails
// twice has failed.
func (r runner) again(ctx context.Context, s stage, first result, names []string) result {
	fmt.Fprintf(r.out, "=== %s: %v; once more: %s\n", s.name, first.err, strings.Join(names, ", "))
	s.env = append(s.env, againEnv+"=^("+strings.Join(names, "|")+`)\b`)
	second := r.one(ctx, s)
	first.elapsed += second.elapsed
	if second.err != nil || second.tests.passed == 0 {
		return first
	}
	first.err, first.unsteady = nil, names
	first.tests.passed += first.tests.failed
	first.tests.failed = 0
	return first
}

// one runs one stage to its end, and takes its process group with it.
func (r runner) one(ctx context.Context, s stage) result {
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, s.budget)
	defer cancel()
	cmd := exec.CommandContext(limited, "bash", "-c", s.command)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = r.grace
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	res := result{stage: s, tests: tally{out: r.out}}
	if res.err = cmd.Start(); res.err != nil {
		return res
	}
	done := make(chan struct{})
	go func() { // ends with the pipe, that is with the command
		defer close(done)
		res.tests.read(bufio.NewReaderSize(read, 64<<10))
	}()
	err := cmd.Wait()
	if kill := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); err == nil && kill == nil {
		err = errors.New("left processes behind")
	}
	write.Close()
	<-done
	res.elapsed = time.Since(start)
	switch {
	case ctx.Err() != nil:
		res.err = errors.New("interrupted")
	case limited.Err() != nil:
		res.err = fmt.Errorf("over its budget of %s", round(s.budget))
	case err != nil:
		res.err = err
	case res.tests.failed > 0:
		res.err = fmt.Errorf("%d tests failed", res.tests.failed)
	}
	return res
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
