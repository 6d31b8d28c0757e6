package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/guest/link"
)

// Boot is how long a guest may take until its PID 1 answers: 8 s on an idle machine
// with Debian's kernel, minutes where it gets what others leave.
const Boot = 5 * time.Minute

// Run is a command to run in a guest of its own.
type Run struct {
	Machine Machine
	Argv    []string
	Env     []string
	Dir     string   // working directory in the guest
	Shares  []string // directories that the guest sees at the same paths, and may write
	Timeout time.Duration
	Stdout  io.Writer
	Stderr  io.Writer
	Log     string // where the serial log is kept if the run fails
}

// Times are a run's, from its start.
type Times struct {
	Booted, Ended time.Duration
	Kernel        string
}

// ErrTimeout is in the error of a run that had to be ended.
var ErrTimeout = errors.New("timed out")

// Run boots a guest, runs the command, ends the guest, and gives the command's
// exit code. An error means that there is none, and names the serial log. When ctx
// ends, QEMU is killed; when this process is killed, QEMU dies with it.
func (p Parts) Run(ctx context.Context, r Run) (code int, times Times, err error) {
	dir, err := runDir()
	if err != nil {
		return 0, times, err
	}
	defer os.RemoveAll(dir)
	f := files{initrd: filepath.Join(dir, "initrd"), serial: filepath.Join(dir, "serial.log"), socket: filepath.Join(dir, "link")}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w%s", err, keepLog(f.serial, r.Log))
		} else if code != 0 {
			keepLog(f.serial, r.Log)
		}
	}()
	shares, err := r.shares()
	if err != nil {
		return 0, times, err
	}
	if err := writeFirstRoot(f.initrd, p.Initrd); err != nil {
		return 0, times, err
	}
	listener, err := net.Listen("unix", f.socket)
	if err != nil {
		return 0, times, err
	}
	defer listener.Close()
	limited, cancel := context.WithTimeoutCause(ctx, r.Timeout, ErrTimeout)
	defer cancel()
	q := p.start(limited, r.Machine.command(p, f, shares))
	s := session{run: r, shares: shares, start: time.Now()}
	code, err = s.talk(limited, listener, q)
	cancel()
	<-q.done
	switch {
	case err == nil:
	case errors.Is(context.Cause(limited), ErrTimeout):
		err = fmt.Errorf("%w after %s", ErrTimeout, r.Timeout)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case q.said != "":
		err = fmt.Errorf("%w; QEMU: %s", err, q.said)
	}
	return code, s.times, err
}

// runDirPrefix is followed by the process's number.
const runDirPrefix = "portolan-guest-"

// runDir makes the directory of a run, and removes those of processes that were killed.
func runDir() (string, error) {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), runDirPrefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range old {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), runDirPrefix), "-")
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			if err := os.RemoveAll(dir); err != nil {
				return "", err
			}
		}
	}
	return os.MkdirTemp("", fmt.Sprintf("%s%d-", runDirPrefix, os.Getpid()))
}

// shares gives each directory a tag. Paths must be absolute, to mean the same in the guest.
func (r Run) shares() ([]link.Share, error) {
	var out []link.Share
	for i, dir := range r.Shares {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(abs); err != nil {
			return nil, fmt.Errorf("share: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("share %s: not a directory", dir)
		}
		out = append(out, link.Share{Tag: fmt.Sprintf("share%d", i), Path: abs})
	}
	return out, nil
}

// process is QEMU.
type process struct {
	done chan struct{} // closed when it has ended
	said string        // what it printed, and its error unless it was killed; set when done
}

// harmless: the hub is a cable between the guest's own NICs.
var harmless = regexp.MustCompile(`(?m)^.*warning: hub 0 is not connected to host network\n`)

// start starts QEMU, which ends with ctx.
func (p Parts) start(ctx context.Context, argv []string) *process {
	q := &process{done: make(chan struct{})}
	go func() { // ends with QEMU
		defer close(q.done)
		// The signal at the parent's death is that of the thread which started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = p.environment()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		q.said = strings.TrimSpace(harmless.ReplaceAllString(string(out), ""))
		if err != nil && ctx.Err() == nil {
			q.said = strings.TrimSpace(err.Error() + " " + q.said)
		}
	}()
	return q
}

// session is the host's end of the link.
type session struct {
	run    Run
	shares []link.Share
	start  time.Time
	times  Times
}

// talk hands the request over and passes on what comes, to the exit.
func (s *session) talk(ctx context.Context, listener net.Listener, q *process) (int, error) {
	conn, err := accept(ctx, listener, q)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := conn.SetReadDeadline(s.start.Add(Boot)); err != nil {
		return 0, err
	}
	kind, text, err := link.Read(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("the guest did not boot within %s", Boot)
	} else if err != nil {
		return 0, fmt.Errorf("the guest ended while it booted: %w", err)
	}
	var booted link.Booted
	if err := decode(kind, link.KindBooted, text, &booted); err != nil {
		return 0, err
	}
	s.times.Booted, s.times.Kernel = time.Since(s.start), booted.Kernel
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	request := link.Request{Argv: s.run.Argv, Env: s.run.Env, Dir: s.run.Dir, Shares: s.shares, Time: time.Now().Unix()}
	if err := link.NewWriter(conn).JSON(link.KindRequest, request); err != nil {
		return 0, err
	}
	return s.pass(conn)
}

// accept waits until QEMU has connected, as it does at its start, or has ended.
func accept(ctx context.Context, listener net.Listener, q *process) (net.Conn, error) {
	connected := make(chan struct{})
	defer close(connected)
	go func() { // ends with accept
		select {
		case <-connected:
		case <-q.done:
			listener.Close()
		case <-ctx.Done():
			listener.Close()
		}
	}()
	conn, err := listener.Accept()
	if err != nil {
		return nil, fmt.Errorf("QEMU did not start: %w", err)
	}
	return conn, nil
}

// pass writes what the command prints, and gives its exit code.
func (s *session) pass(conn io.Reader) (int, error) {
	for {
		kind, p, err := link.Read(conn)
		if err != nil {
			return 0, fmt.Errorf("the guest ended before its command: %w", err)
		}
		switch kind {
		case link.KindStdout:
			_, err = s.run.Stdout.Write(p)
		case link.KindStderr:
			_, err = s.run.Stderr.Write(p)
		default:
			var exit link.Exit
			if err := decode(kind, link.KindExit, p, &exit); err != nil {
				return 0, err
			}
			s.times.Ended = time.Since(s.start)
			if exit.Error != "" {
				return 0, fmt.Errorf("%s: %s", s.run.Argv[0], exit.Error)
			}
			return exit.Code, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func decode(got, want link.Kind, text []byte, v any) error {
	if got != want {
		return fmt.Errorf("the guest sent a frame of kind %q where %q was expected", got, want)
	}
	return json.Unmarshal(text, v)
}

// keepLog copies the serial log out of the run's directory, and says where to with its end.
func keepLog(serial, to string) string {
	text, err := os.ReadFile(serial)
	if err != nil || to == "" {
		return ""
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, text, 0o644)); err != nil {
		return fmt.Sprintf(" (serial log not kept: %v)", err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Sprintf(" (serial log: %s)\n  %s", to, strings.Join(lines[max(0, len(lines)-15):], "\n  "))
}
