// Package cnitest has stand-ins for what an Agent works on: OVS ports, veth
// pairs and the publisher, in memory. They refuse what the real ones refuse: a
// port is claimed only while it exists, a peer moves only while it is parked.
package cnitest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/portolan-cni/portolan/pkg/cni"
)

// Ports is an OVS database in memory. The zero value is ready.
type Ports struct {
	// Hold keeps new ports from being installed, until Install. Set it before use.
	Hold bool

	mu        sync.Mutex // guards the rest
	ports     map[string]cni.Port
	installed map[string]chan struct{} // closed when installed
	fail      error
}

// Fail makes every write fail with err; nil ends that.
func (p *Ports) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// Ensure implements cni.Ports.
func (p *Ports) Ensure(_ context.Context, port cni.Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.ports[port.Name]; ok || p.fail != nil {
		return p.fail
	}
	if p.ports == nil {
		p.ports, p.installed = make(map[string]cni.Port), make(map[string]chan struct{})
	}
	p.ports[port.Name] = port
	p.installed[port.Name] = make(chan struct{})
	if !p.Hold {
		close(p.installed[port.Name])
	}
	return nil
}

// Install does what ovn-controller does: the port's flows are in place.
func (p *Ports) Install(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.installed[name])
}

// Claim implements cni.Ports.
func (p *Ports) Claim(_ context.Context, name, sandbox, ifName string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	port, ok := p.ports[name]
	if !ok {
		return errors.New("the interface's record is gone")
	}
	if p.fail != nil {
		return p.fail
	}
	port.Sandbox, port.IfName = sandbox, ifName
	p.ports[name] = port
	return nil
}

// Remove implements cni.Ports.
func (p *Ports) Remove(_ context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail == nil {
		delete(p.ports, name)
	}
	return p.fail
}

// List implements cni.Ports.
func (p *Ports) List(context.Context) ([]cni.Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []cni.Port
	for _, name := range slices.Sorted(maps.Keys(p.ports)) {
		out = append(out, p.ports[name])
	}
	return out, nil
}

// WaitInstalled implements cni.Ports.
func (p *Ports) WaitInstalled(ctx context.Context, name string) error {
	p.mu.Lock()
	done, ok := p.installed[name]
	p.mu.Unlock()
	if !ok {
		return errors.New("the OVS port is gone")
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no ovn-installed: %w", context.Cause(ctx))
	}
}

// State implements cni.Ports.
func (p *Ports) State(_ context.Context, name string) (cni.PortState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	port, ok := p.ports[name]
	if !ok {
		return cni.PortState{}, nil
	}
	s := cni.PortState{Exists: true, OFPort: 1, Sandbox: port.Sandbox}
	select {
	case <-p.installed[name]:
		s.Installed = true
	default:
	}
	return s, nil
}

// Links is a kernel in memory. The zero value is ready.
type Links struct {
	mu    sync.Mutex // guards the rest
	pairs map[string]cni.Endpoint
	fail  string
}

// FailAt makes Attach fail after entering a stage, with the peer moved; "" ends that.
func (l *Links) FailAt(stage string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = stage
}

// Create implements cni.Links.
func (l *Links) Create(d cni.Device) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pairs == nil {
		l.pairs = make(map[string]cni.Endpoint)
	}
	l.pairs[d.Host] = cni.Endpoint{}
	return nil
}

// Parked implements cni.Links.
func (l *Links) Parked(d cni.Device) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.pairs[d.Host]
	return ok && e.Netns == "", nil
}

// Attach implements cni.Links.
func (l *Links) Attach(d cni.Device, e cni.Endpoint, enter func(string) error) error {
	for _, stage := range []string{cni.StageMove, cni.StageConfigure, cni.StageAnnounce} {
		if err := enter(stage); err != nil {
			return err
		}
		if err := l.step(d, e, stage); err != nil {
			return err
		}
	}
	return nil
}

func (l *Links) step(d cni.Device, e cni.Endpoint, stage string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stage == cni.StageMove {
		if at, ok := l.pairs[d.Host]; !ok || at.Netns != "" {
			return fmt.Errorf("the parked peer %s is gone", d.Parked)
		}
		l.pairs[d.Host] = e
	}
	if stage == l.fail {
		return errors.New("failed as asked")
	}
	return nil
}

// Detach implements cni.Links.
func (l *Links) Detach(d cni.Device, e cni.Endpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.pairs[d.Host]; !ok || at.Netns != e.Netns {
		return fmt.Errorf("%s is not at %s", d.Host, e.Netns)
	}
	l.pairs[d.Host] = cni.Endpoint{}
	return nil
}

// Verify implements cni.Links.
func (l *Links) Verify(d cni.Device, e cni.Endpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at, ok := l.pairs[d.Host]; !ok || at.Netns != e.Netns || at.IfName != e.IfName {
		return fmt.Errorf("%s is not at %s", d.Host, e.Netns)
	}
	return nil
}

// Delete implements cni.Links.
func (l *Links) Delete(host string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pairs, host)
	return nil
}

// List implements cni.Links.
func (l *Links) List() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.pairs)), nil
}

// At returns the network namespaces that peers are in, "" for parked ones, sorted.
func (l *Links) At() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.pairs {
		out = append(out, e.Netns)
	}
	slices.Sort(out)
	return out
}

// Publisher records what is allocated. The zero value is ready.
type Publisher struct {
	mu sync.Mutex // guards held
	// held is by pod UID
	held map[string]cni.Attachment
}

// Attached implements cni.Publisher.
func (p *Publisher) Attached(a cni.Attachment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held = make(map[string]cni.Attachment)
	}
	p.held[a.Pod.UID] = a
}

// Released implements cni.Publisher.
func (p *Publisher) Released(a cni.Attachment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, a.Pod.UID)
}

// Held returns a pod's attachment, zero when it has none.
func (p *Publisher) Held(uid string) cni.Attachment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[uid]
}
