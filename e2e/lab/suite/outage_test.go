package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// command runs the lab's program and gives all that it printed.
func command(t testing.TB, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "../../../bin/lab", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// TestFaultOutage does what no signal to one daemon does: a CNI call that dies
// under way, an API server that is away while sandboxes are made again, an agent's
// pod that is replaced, an OVS that is.
func TestFaultOutage(t *testing.T) {
	r := rig(t)
	apply(t, podManifest("spare", victim))
	spare := ready(t)["spare"]
	for _, f := range []faults.Fault{
		{Name: "kill -9 portolan-cni in flight", Do: func(ctx context.Context, r *faults.Rig) error { return killCall(t) }},
		{Name: "API server away, sandbox made again", Do: func(ctx context.Context, r *faults.Rig) error { return withoutAPI(t, spare) }},
		{Name: "agent's pod replaced", Patience: 2 * time.Minute, Do: func(ctx context.Context, r *faults.Rig) error {
			_, err := r.Lab(ctx, "kubectl", "-n", "portolan", "delete", "pod", agentOf(t, victim), "--wait=true")
			return err
		}},
		{Name: "OVS's pod replaced", Bounded: true, Patience: 3 * time.Minute, Do: func(ctx context.Context, r *faults.Rig) error {
			_, err := r.Lab(ctx, "kubectl", "-n", "portolan", "delete", "pod", "-l", "app.kubernetes.io/name=ovs-node",
				"--field-selector", "spec.nodeName="+victim, "--wait=false")
			return err
		}},
	} {
		t.Run(f.Name, func(t *testing.T) { do(t, r, f) })
	}
}

// signal sends one to the processes of a program on a node.
func signal(host, program string, sig syscall.Signal) error {
	list, err := node.Processes(host)
	if err != nil {
		return err
	}
	err = fmt.Errorf("%s does not run on %s", program, host)
	for _, p := range list {
		if p.Program() == program && len(p.Argv) > 1 && p.Argv[1] != "daemon" {
			err = syscall.Kill(p.PID, sig)
		}
	}
	return err
}

// killCall stops the agent so that a call waits for it, and kills the call.
func killCall(t *testing.T) error {
	if err := signal(victim, "portolan-node", syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _ = signal(victim, "portolan-node", syscall.SIGCONT) }()
	apply(t, podManifest("late", victim))
	err := inTime(20*time.Second, func() error {
		list, err := node.Processes(victim)
		if err != nil {
			return err
		}
		for _, p := range list {
			if p.Program() == "portolan-cni" {
				return syscall.Kill(p.PID, syscall.SIGKILL)
			}
		}
		return errors.New("no portolan-cni was started")
	})
	if err != nil {
		return err
	}
	if err := signal(victim, "portolan-node", syscall.SIGCONT); err != nil {
		return err
	}
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/late", "--timeout=60s")
	kubectl(t, "-n", namespace, "delete", "pod", "late", "--wait=true", "--timeout=60s")
	return nil
}

// withoutAPI kills a pod's sandbox while the API server answers nobody, and waits
// until the kubelet has made another: with the address that is the pod's.
func withoutAPI(t *testing.T, p pod) error {
	const control = "ovn-control-plane"
	if err := signal(control, "kube-apiserver", syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _ = signal(control, "kube-apiserver", syscall.SIGCONT) }()
	old, err := os.Stat(p.Path)
	if err != nil {
		return err
	}
	if err := killSandbox(old); err != nil {
		return err
	}
	return inTime(60*time.Second, func() error {
		now, ok := find(p)
		if !ok {
			return fmt.Errorf("no namespace with %v", p.Addrs)
		}
		if now.Path == p.Path { // not by inode: the kernel gives a dead namespace's to the next
			return errors.New("the old sandbox is still there")
		}
		return nil
	})
}

// killSandbox kills what runs in a pod's network namespace: the sandbox's own
// process, which holds it, and the pod's container, which is of the same program.
func killSandbox(namespace os.FileInfo) error {
	list, err := node.Processes(victim)
	if err != nil {
		return err
	}
	err = errors.New("no process is in the sandbox")
	for _, p := range list {
		info, stat := os.Stat(fmt.Sprintf("/proc/%d/ns/net", p.PID))
		if stat == nil && os.SameFile(info, namespace) && p.Program() == "pause" {
			err = syscall.Kill(p.PID, syscall.SIGKILL)
		}
	}
	return err
}

// inTime asks again until ok or time is up.
func inTime(patience time.Duration, ok func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", patience, err)
		}
	}
}

// TestFaultReboot cuts a node's power and boots it. Packets of other nodes are
// counted meanwhile: none may be lost; and the node is what it was, with its pod.
func TestFaultReboot(t *testing.T) {
	r := rig(t)
	r.Node, r.Others = other, []string{victim}
	r.Paths = r.Paths[:2] // within the other node, and from there outside
	r.Port = 0
	do(t, r, faults.Fault{Name: "node crashed and booted (other nodes' packets)", Reboots: true, Patience: 4 * time.Minute, Do: func(ctx context.Context, r *faults.Rig) error {
		if _, err := r.Lab(ctx, "crash", r.Node); err != nil {
			return err
		}
		_, err := r.Lab(ctx, "boot", "--wait", r.Node)
		return err
	}})
}
