package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// The stages of calls, in the order of an ADD and then of a DEL. They are label
// values of a metric and part of error messages: renaming one is a change that
// users see.
const (
	StageWaitTurn     = "wait-turn"
	StageFindPod      = "find-pod"
	StageWaitNetwork  = "wait-network"
	StageVerify       = "verify"
	StageChooseDevice = "choose-device"
	StageAllocate     = "allocate"
	StageTakeDevice   = "take-device"
	StageCreateVeth   = "create-veth"
	StageCreatePort   = "create-port"
	StageConfigure    = "configure"
	StageRaiseDevice  = "raise-device"
	StageInstalled    = "wait-installed"
	StageAnnounce     = "announce"
	StageCommitDevice = "commit-device"
	StageRunPlugins   = "run-plugins"
	StageAnswer       = "answer"
	StageUndoPlugins  = "undo-plugins"
	StageReturnDevice = "return-device"
	StageRemoveVeth   = "remove-veth"
	StageRemovePort   = "remove-port"
	StageFlush        = "flush-connections"
	StageFreeAddress  = "free-address"
)

// advice says, for a stage that failed, what to look at; device is that of a trace.
func advice(stage, device string) string {
	show := strings.TrimSpace("ip -d link show " + device) // without a name it lists all
	switch stage {
	case StageWaitTurn:
		return "look for an earlier call of this sandbox in portolan-node's log"
	case StageFindPod:
		return "look at portolan-node's connection to the API server (its log), and at the pod: kubectl get pod -o wide"
	case StageWaitNetwork:
		return "look at kubectl get net-attach-def -A and kubectl get networks, and at the pod's annotation k8s.v1.cni.cncf.io/networks"
	case StageAllocate:
		return "look at the network that is named: kubectl get networks; for the default one, at the node's annotation k8s.ovn.org/node-subnets"
	case StageCreatePort, StageRemovePort:
		return "look at ovsdb-server in the ovs-node pod: ovs-vsctl show"
	case StageInstalled:
		return "look at " + strings.TrimSpace("ovs-vsctl list Interface "+device) + ", at ovn-controller's log, and at portolan status on this node"
	case StageRunPlugins, StageUndoPlugins:
		return "look at the definition that is named, and at what its plugin says; portolan-node runs it in the node's plugin directory"
	case StageChooseDevice:
		return "look at the pod's requests and the definition's annotation k8s.v1.cni.cncf.io/resourceName, and at kubectl get devicepools"
	case StageTakeDevice, StageRaiseDevice, StageCommitDevice, StageReturnDevice:
		return "look at " + show + " on the node, at the kernel's log for what the driver says, and at the device's record in /run/portolan/devices"
	case StageFlush:
		return "look at ovs-vswitchd in the ovs-node pod: ovs-appctl dpctl/dump-conntrack; the address is not given again before its connections are gone"
	case StageConfigure, StageAnnounce, StageVerify:
		return "look at " + show + " on the node, and at ip addr in the sandbox"
	}
	return "look at portolan-node's log and at " + show + " on the node"
}

// trace follows one call through its stages.
type trace struct {
	agent   *Agent
	command string
	subject string // the pod or the sandbox, for people
	pod     Pod    // of an ADD or PREPARE, once known
	port    string // the network device on the node to look at, once known: the OVS port; of a function on the physical network its NIC
	began   time.Time
	stage   string
	entered time.Time
}

func (a *Agent) trace(command, subject string) *trace {
	now := time.Now()
	return &trace{agent: a, command: command, subject: subject, began: now, entered: now}
}

// enter ends the stage before and begins one, unless the call is over.
func (t *trace) enter(ctx context.Context, stage string) error {
	t.observe()
	t.stage, t.entered = stage, time.Now()
	t.agent.progress.entered(t)
	if hook := t.agent.config.AtStage; hook != nil {
		hook(t.command, stage)
	}
	return context.Cause(ctx)
}

func (t *trace) observe() {
	if t.stage != "" && t.agent.config.Observe != nil {
		t.agent.config.Observe(t.command, t.stage, time.Since(t.entered))
	}
}

// done ends the last stage.
func (t *trace) done() {
	t.observe()
	t.agent.progress.ended(t, nil)
	t.stage = ""
}

// fail words an error for the runtime: which stage, which pod, after how long,
// what to look at.
func (t *trace) fail(err error) *wire.Error {
	e := &wire.Error{
		Code: codeOf(err),
		Msg: fmt.Sprintf("%s of %s failed in stage %s after %s (in this stage %s): %v", t.command, t.subject, t.stage,
			round(time.Since(t.began)), round(time.Since(t.entered)), err),
		Details: advice(t.stage, t.port),
	}
	t.agent.progress.ended(t, e)
	return e
}

func codeOf(err error) uint {
	var coded *wire.Error
	var full *alloc.ExhaustedError
	var pending *PendingError
	switch {
	case errors.As(err, &coded):
		return coded.Code
	case errors.As(err, &full):
		return wire.CodeNoAddressLeft
	case errors.As(err, &pending):
		return wire.CodeTryAgain
	case errors.Is(err, errNetns):
		return wire.CodeNetns
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, errTimeout),
		errors.Is(err, errCallerGone), errors.Is(err, errNotRecovered):
		return wire.CodeTryAgain
	}
	return wire.CodeFailed
}

// The reasons for which a call ends early.
var (
	errTimeout      = errors.New("the call's time is up")
	errCallerGone   = errors.New("the caller has gone away")
	errNotRecovered = errors.New("portolan-node is still starting")
	errNetns        = fmt.Errorf("the sandbox's network namespace cannot be opened: %w", fs.ErrNotExist)
)

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
