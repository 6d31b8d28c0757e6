package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// Prepare makes the interface of a pod that is bound to this node, so that its
// ADD finds it (decision 26). Nothing to do is no error.
func (a *Agent) Prepare(ctx context.Context, p Pod) error {
	t := a.trace("PREPARE", "pod "+p.String())
	if err := a.prepare(ctx, t, p); err != nil {
		return t.fail(err)
	}
	t.done()
	return nil
}

func (a *Agent) prepare(ctx context.Context, t *trace, p Pod) error {
	if !a.recovered.Load() {
		return errNotRecovered
	}
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return err
	}
	unlock, err := a.pods.lock(ctx, p.UID)
	if err != nil {
		return err
	}
	defer unlock()
	e := a.entryOf(p)
	if e.retired {
		return nil
	}
	return a.ensure(ctx, t, e)
}

// add serves ADD. The caller holds the sandbox's lock.
func (a *Agent) add(ctx context.Context, t *trace, r *Request) (*Result, error) {
	if err := t.enter(ctx, StageFindPod); err != nil {
		return nil, err
	}
	pod, err := a.config.Pods.Wait(ctx, r.Args.Namespace, r.Args.Name, r.Args.UID)
	if err != nil {
		return nil, err
	}
	t.subject = fmt.Sprintf("pod %s (UID %s, sandbox %.12s)", pod, pod.UID, r.ContainerID)
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return nil, err
	}
	unlock, err := a.pods.lock(ctx, pod.UID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	e := a.entryOf(pod)
	e.retired, e.gone = false, false
	done, err := a.reuse(ctx, t, e, r)
	if err != nil {
		return nil, err
	}
	if done {
		return a.result(e, r), nil
	}
	if err := a.ensure(ctx, t, e); err != nil {
		return nil, err
	}
	if err := a.attach(ctx, t, e, r); err != nil {
		return nil, errors.Join(err, a.rollback(ctx, t, e, r))
	}
	return a.result(e, r), nil
}

// reuse decides what becomes of the port that the pod has: it is kept when it is
// prepared and whole, or already this sandbox's and whole (then the ADD is done);
// else it is discarded, and a new one is made.
func (a *Agent) reuse(ctx context.Context, t *trace, e *entry, r *Request) (done bool, err error) {
	if e.port.Name == "" {
		return false, nil
	}
	t.port = e.port.Name
	if err := t.enter(ctx, StageVerify); err != nil {
		return false, err
	}
	switch e.port.Sandbox {
	case "":
		parked, err := a.config.Links.Parked(a.device(e))
		if err != nil || parked {
			return false, err
		}
	case r.ContainerID:
		if err := a.verify(ctx, e, r); err == nil {
			// While ovn-controller restarts, its flows go and come back: no reason to
			// make the interface of a running pod anew.
			if err := t.enter(ctx, StageInstalled); err != nil {
				return false, err
			}
			return true, a.config.Ports.WaitInstalled(ctx, e.port.Name)
		}
	}
	return false, a.discard(ctx, t, e)
}

// attach gives the port to the sandbox.
func (a *Agent) attach(ctx context.Context, t *trace, e *entry, r *Request) error {
	t.port = e.port.Name
	if err := t.enter(ctx, StageClaim); err != nil {
		return err
	}
	if err := a.config.Ports.Claim(ctx, e.port.Name, r.ContainerID, r.IfName); err != nil {
		return err
	}
	a.setOwner(e, r.ContainerID)
	e.port.IfName = r.IfName
	// OVN, if it is not ready yet, goes on while the peer is moved: the kernel takes
	// an RCU grace period for that (10 to 20 ms). It is announced when OVN is ready.
	enter := func(stage string) error {
		if stage == StageAnnounce {
			if err := t.enter(ctx, StageInstalled); err != nil {
				return err
			}
			if err := a.config.Ports.WaitInstalled(ctx, e.port.Name); err != nil {
				return err
			}
		}
		return t.enter(ctx, stage)
	}
	if err := a.config.Links.Attach(a.device(e), a.endpoint(e, r), enter); err != nil {
		return err
	}
	return t.enter(ctx, StageAnswer)
}

// rollback undoes what an ADD did. When OVN was too slow, the port becomes a
// prepared one again, so that the next ADD goes on where this one was; when
// anything else failed after the move, it is removed.
func (a *Agent) rollback(ctx context.Context, t *trace, e *entry, r *Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	if e.port.Sandbox != r.ContainerID {
		return nil // not even claimed
	}
	d := a.device(e)
	if t.stage == StageInstalled {
		if err := a.config.Links.Detach(d, a.endpoint(e, r)); err != nil {
			return errors.Join(err, a.discard(ctx, nil, e))
		}
	}
	if parked, err := a.config.Links.Parked(d); err != nil || !parked {
		return errors.Join(err, a.discard(ctx, nil, e))
	}
	if err := a.config.Ports.Claim(ctx, e.port.Name, "", defaultInterface); err != nil {
		return err
	}
	a.setOwner(e, "")
	e.port.IfName = defaultInterface
	return nil
}

func (a *Agent) endpoint(e *entry, r *Request) Endpoint {
	return Endpoint{Netns: r.Netns, IfName: r.IfName, Addresses: e.addresses, Gateways: a.attachment(e).Gateways}
}

func (a *Agent) result(e *entry, r *Request) *Result {
	at := a.attachment(e)
	return &Result{
		Host:      ResultInterface{Name: e.port.Name, MTU: a.config.MTU},
		Pod:       ResultInterface{Name: r.IfName, MAC: at.MAC, MTU: a.config.MTU, Sandbox: r.Netns},
		Addresses: at.Addresses, Gateways: at.Gateways,
	}
}

// verify reports what an attached pod lacks, but for OVN's flows.
func (a *Agent) verify(ctx context.Context, e *entry, r *Request) error {
	s, err := a.config.Ports.State(ctx, e.port.Name)
	switch {
	case err != nil:
		return err
	case !s.Exists:
		return fmt.Errorf("the OVS port %s is gone", e.port.Name)
	case s.Sandbox != r.ContainerID:
		return fmt.Errorf("the OVS port %s belongs to sandbox %q", e.port.Name, s.Sandbox)
	}
	return a.config.Links.Verify(a.device(e), a.endpoint(e, r))
}

// check serves CHECK. The caller holds the sandbox's lock.
func (a *Agent) check(ctx context.Context, t *trace, r *Request) error {
	if err := t.enter(ctx, StageVerify); err != nil {
		return err
	}
	uid, ok := a.ownerOf(r.ContainerID)
	if !ok {
		return wire.Errorf(wire.CodeInconsistent, "no port belongs to this sandbox")
	}
	unlock, err := a.pods.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	e := a.lookup(uid)
	if e == nil || e.port.Sandbox != r.ContainerID {
		return wire.Errorf(wire.CodeInconsistent, "no port belongs to this sandbox")
	}
	t.port = e.port.Name
	if err := a.verify(ctx, e, r); err != nil {
		return wire.Errorf(wire.CodeInconsistent, "%v", err)
	}
	if s, err := a.config.Ports.State(ctx, e.port.Name); err != nil || !s.Installed {
		return wire.Errorf(wire.CodeInconsistent, "the OVS port %s: %s", e.port.Name, waitingFor(s, err))
	}
	return nil
}
