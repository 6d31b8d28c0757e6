package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// keptEnv marks the process that keeps a program; its value is a directory.
const keptEnv = "PORTOLAN_KEEP_IN"

// TestKept is that process, when it is marked.
func TestKept(t *testing.T) {
	dir := os.Getenv(keptEnv)
	if dir == "" {
		t.Skip("the process that the other tests start")
	}
	d := Daemon{Name: "sleeper", Prepare: func(context.Context) error {
		f, err := os.OpenFile(filepath.Join(dir, "starts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = fmt.Fprintln(f, "start")
		return err
	}, Argv: []string{"sh", "-c", "echo $$ > " + dir + "/pid.new && mv " + dir + "/pid.new " + dir + "/pid; exec " + os.Getenv("PORTOLAN_KEEP_RUN")}}
	if err := d.Keep(t.Context(), os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(7)
	}
	os.Exit(0)
}

// keeper starts TestKept with a program, and returns it with its directory.
func keeper(t *testing.T, program string) (*exec.Cmd, string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKept$")
	cmd.Env = append(os.Environ(), keptEnv+"="+dir, "PORTOLAN_KEEP_RUN="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, dir
}

// pid waits for a program's process id that is not the old one.
func pid(t *testing.T, dir string, old int) int {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if now, _ := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && now != old {
			return now
		}
	}
	t.Fatal("the program was not started")
	return 0
}

func TestKeepStartsAgainWhatWasKilled(t *testing.T) {
	cmd, dir := keeper(t, "sleep 600")
	first := pid(t, dir, 0)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := pid(t, dir, first)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("asked to end: %v", err)
	}
	if err := syscall.Kill(second, 0); err == nil {
		t.Error("its program is still there")
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "starts")); strings.Count(string(b), "start") != 2 {
		t.Errorf("prepared: %q, want it before each of two starts", b)
	}
}

func TestKeepEndsWithWhatEndsByItself(t *testing.T) {
	for _, program := range []string{"true", "false", "sh -c 'kill -9 $$'"} {
		cmd, dir := keeper(t, program)
		if err := cmd.Wait(); err == nil {
			t.Errorf("%s: no error", program)
		}
		b, _ := os.ReadFile(filepath.Join(dir, "starts"))
		want := 1
		if strings.Contains(program, "kill") {
			want = tries
		}
		if got := strings.Count(string(b), "start"); got != want {
			t.Errorf("%s: started %d times, want %d", program, got, want)
		}
	}
}

func TestProgramDiesWithItsKeeper(t *testing.T) {
	cmd, dir := keeper(t, "sleep 600")
	child := pid(t, dir, 0)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(child, 0) == nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the program outlived the process that kept it")
		}
	}
}
