package inside

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/guest/link"
)

// lingering is how long output is awaited that a daemon of the ended command may still write.
const lingering = time.Second

// path is the command's PATH.
const path = "/usr/sbin:/usr/bin:/sbin:/bin"

func readRequest(r io.Reader) (link.Request, error) {
	var out link.Request
	kind, text, err := link.Read(r)
	if err != nil {
		return out, err
	}
	if kind != link.KindRequest {
		return out, fmt.Errorf("a frame of kind %q where the request was expected", kind)
	}
	if err := json.Unmarshal(text, &out); err != nil {
		return out, err
	}
	if len(out.Argv) == 0 {
		return out, errors.New("the request has no command")
	}
	return out, nil
}

// serve does what the request asks, and gives how that went.
func serve(r link.Request, out *link.Writer) link.Exit {
	if r.Time != 0 {
		now := unix.NsecToTimeval(r.Time * int64(time.Second))
		if err := unix.Settimeofday(&now); err != nil {
			return link.Exit{Error: fmt.Sprintf("set the clock: %v", err)}
		}
	}
	for _, s := range r.Shares {
		// loose: nobody on the host changes a share meanwhile, and programs run from it.
		m := mount{s.Tag, "9p", s.Path, "trans=virtio,version=9p2000.L,msize=524288,cache=loose", true}
		if err := m.do(); err != nil {
			return link.Exit{Error: err.Error()}
		}
	}
	code, err := run(r, out)
	if err != nil {
		return link.Exit{Error: err.Error()}
	}
	return link.Exit{Code: code}
}

// run starts the command and reaps until it has ended. What it left running goes on.
func run(r link.Request, out *link.Writer) (code int, err error) {
	os.Clearenv()
	if err := os.Setenv("PATH", path); err != nil { // for LookPath
		return 0, err
	}
	program, err := exec.LookPath(r.Argv[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	pipe := func(k link.Kind) (read, write *os.File, err error) {
		read, write, err = os.Pipe()
		if err == nil {
			wg.Add(1)
			go func() { // ends with the pipe, or at its deadline
				defer wg.Done()
				_, _ = io.Copy(out.Stream(k), read)
			}()
		}
		return read, write, err
	}
	stdout, stdoutEnd, err := pipe(link.KindStdout)
	if err != nil {
		return 0, err
	}
	stderr, stderrEnd, err := pipe(link.KindStderr)
	if err != nil {
		return 0, err
	}
	dir := r.Dir
	if dir == "" {
		dir = "/"
	}
	p, err := os.StartProcess(program, r.Argv, &os.ProcAttr{
		Dir: dir, Env: append([]string{"PATH=" + path, "HOME=/root", "TERM=dumb"}, r.Env...), Files: []*os.File{null, stdoutEnd, stderrEnd}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	stdoutEnd.Close()
	stderrEnd.Close()
	if err != nil {
		return 0, err
	}
	code, err = reap(p.Pid)
	for _, f := range []*os.File{stdout, stderr} {
		_ = f.SetReadDeadline(time.Now().Add(lingering))
	}
	wg.Wait()
	return code, err
}

// reap waits for children, its own and those it was left, until the one with the pid has ended.
func reap(pid int) (code int, err error) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for the command: %w", err)
		case got == pid && status.Signaled():
			return 128 + int(status.Signal()), nil
		case got == pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}
