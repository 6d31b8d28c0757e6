package offload

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	guestProgram = flag.String("guest", "", "the program that runs guests; make e2e SUITE=offload")
	only         = flag.String("only", "", "run tests in the guest whose names match, as go test -run takes it: without TestDebian and TestOwn")
)

// margin is kept of the test's own deadline, to end guests and tell why.
const margin = 20 * time.Second

// TestGuestDebian runs the tests of package suite that are for Debian's kernel.
func TestGuestDebian(t *testing.T) { inGuest(t, "debian", "TestDebian") }

// TestGuestOwn runs those for the kernel of our own configuration, where that is
// built. They are tests of their own, so that one is run again without the other.
func TestGuestOwn(t *testing.T) { inGuest(t, "own", "TestOwn") }

// inGuest boots a guest with a kernel and runs the tests in it whose names begin so.
func inGuest(t *testing.T, kernel, prefix string) {
	if *guestProgram == "" {
		t.Skip("needs the program that runs guests: make e2e SUITE=offload")
	}
	if kernel == "own" {
		if out, err := exec.Command(*guestProgram, "kernel", "--cached").CombinedOutput(); err != nil {
			t.Skipf("%s", strings.TrimSpace(string(out)))
		}
	}
	dir := t.TempDir()
	runSuite(t, kernel, dir, compile(t, dir), "-test.run=^"+prefix+*only)
}

// compile builds the tests and Portolan's programs, static, into dir.
func compile(t *testing.T, dir string) (suite string) {
	t.Helper()
	suite = filepath.Join(dir, "suite.test")
	for _, argv := range [][]string{
		{"go", "test", "-c", "-tags", "guest", "-ldflags", "-s -w", "-o", suite, "./suite"},
		{"go", "build", "-ldflags", "-s -w", "-o", dir + "/", "../../cmd/portolan", "../../cmd/portolan-node", "../../cmd/portolan-cni", "../hardware"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	out, err := exec.Command(suite, "-test.list", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !regexp.MustCompile("^Test(Debian|Own)[A-Z]").MatchString(name) {
			t.Errorf("%s of package suite names no kernel, and would never run: TestDebian… or TestOwn…", name)
		}
	}
	return suite
}

// runSuite runs the suite in a guest and replays what it tells.
func runSuite(t *testing.T, kernel, dir, suite, which string) {
	ctx, cancel := t.Context(), context.CancelFunc(func() {})
	if deadline, ok := t.Deadline(); ok {
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
	}
	defer cancel()
	guest := exec.CommandContext(ctx, *guestProgram, "run", "--kernel", kernel, "--share", dir, "--env", "PORTOLAN_BIN="+dir, "--dir", dir, "--",
		suite, "-test.v=test2json", "-test.timeout=0", fmt.Sprintf("-test.short=%t", testing.Short()), which)
	// In this process group: who interrupts the tests interrupts the guest.
	guest.Cancel = func() error { return guest.Process.Signal(syscall.SIGTERM) }
	guest.WaitDelay = margin
	var said strings.Builder
	guest.Stderr = &said
	convert := exec.Command("go", "tool", "test2json")
	stdout, err := guest.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	convert.Stdin = stdout
	read, err := convert.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(guest.Start(), convert.Start()); err != nil {
		t.Fatal(err)
	}
	e := newEvents(read)
	if err := e.replay(test{t}, ""); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, read)
	err = errors.Join(convert.Wait(), guest.Wait())
	if e.ended != "pass" || err != nil {
		t.Errorf("the tests in the guest ended with %q, %v\n%s", e.ended, err, said.String())
	} else {
		t.Log(strings.TrimSpace(said.String()))
	}
}

// test is the stand-in that go test knows.
type test struct{ *testing.T }

func (t test) sub(name string, fn func(standIn)) {
	t.T.Run(name, func(t *testing.T) { fn(test{t}) })
}
