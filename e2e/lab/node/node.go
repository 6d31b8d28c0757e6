package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// StageCommand and InitCommand are the hidden commands of the lab's own binary
// by which a node is entered: Stage joins cgroup and network, Init is its PID 1.
const (
	StageCommand = "node-stage"
	InitCommand  = "node-init"
)

// searchPath is the PATH inside a node.
const searchPath = "/opt/lab/kube:/opt/lab/ovn:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Env is the environment of programs inside a node.
func Env() []string {
	return []string{"PATH=" + searchPath, "HOME=/root", "TERM=xterm", "KUBECONFIG=/etc/kubernetes/admin.conf",
		"CONTAINERD_ADDRESS=/run/containerd/containerd.sock", "CONTAINERD_NAMESPACE=k8s.io"}
}

// Start starts a node whose network namespace exists. It returns when its init
// runs, not when its services are ready.
func Start(ctx context.Context, s Spec) error {
	if err := s.Save(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Run, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Logs(), "init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, StageCommand, s.State)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if _, err := InitPID(s.Name); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("node %s: its init did not start; %s says:\n%s", s.Name, log.Name(), lastLines(text, 5))
}

// Stage turns this process into the node whose state directory is given. It
// returns only if that fails.
func Stage(state string) error {
	s, err := ReadSpec(state)
	if err != nil {
		return err
	}
	if err := joinCgroup(s.Name); err != nil {
		return err
	}
	// exec keeps the namespaces of the thread that calls it.
	runtime.LockOSThread()
	ns, err := os.Open(wire.Path(wire.Namespace(s.Name)))
	if err != nil {
		return fmt.Errorf("node %s: %w", s.Name, err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("node %s: enter its network: %w", s.Name, err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	argv := []string{unshare, "--mount", "--propagation", "private", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child", self, InitCommand, state}
	return syscall.Exec(unshare, argv, Env())
}

// InitPID is the process that is PID 1 in the node, as this machine numbers it.
func InitPID(name string) (int, error) {
	pids, err := processes(filepath.Join(members(), name))
	if err != nil {
		return 0, err
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		if isNodeInit(string(status)) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("node %s is down: `lab boot %s` starts it", name, name)
}

// isNodeInit: in a pid namespace directly below the machine's, with number 1.
// A container's init has three numbers, the stage's parent one.
func isNodeInit(status string) bool {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			return len(f) == 2 && f[1] == "1"
		}
	}
	return false
}

// Enter gives the command line that runs argv inside a node. nsenter forks when it
// enters a pid namespace and passes no signals on: its death ends the program.
func Enter(name string, argv []string) ([]string, error) {
	pid, err := InitPID(name)
	if err != nil {
		return nil, err
	}
	out := []string{"nsenter", "-t", strconv.Itoa(pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--",
		"/usr/bin/setpriv", "--pdeathsig", "TERM", "/usr/bin/env"}
	return append(append(out, Env()...), argv...), nil
}

// Run runs a command inside a node and gives its output.
func Run(ctx context.Context, name string, argv ...string) (string, error) {
	full, err := Enter(name, argv)
	if err != nil {
		return "", err
	}
	out, err := proc.Output(ctx, full...)
	if err != nil {
		return out, fmt.Errorf("node %s: %w", name, err)
	}
	return out, nil
}

// Crash kills everything of a node at once: its init first, with which the
// kernel kills the pid namespace, as a power cut would.
func Crash(ctx context.Context, name string) error {
	if pid, err := InitPID(name); err == nil {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	if err := killAll(ctx, filepath.Join(members(), name)); err != nil {
		return err
	}
	return removeCgroups(ctx, name)
}

// CrashAll ends every node of the lab and everything else in its cgroup.
func CrashAll(ctx context.Context) error {
	return errors.Join(killAll(ctx, members()), removeCgroups(ctx, "."))
}

// Alive counts the processes of all nodes.
func Alive() (int, error) {
	pids, err := processes(members())
	return len(pids), err
}

func lastLines(text []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return bytes.Join(lines, []byte("\n"))
}
