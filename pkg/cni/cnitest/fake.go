// Package cnitest has stand-ins for what an Agent works on: OVS ports, veth
// pairs and the publisher, in memory. They refuse what the real ones refuse: a
// name that the sandbox has already, a pair that is not there.
package cnitest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

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
func (p *Ports) Ensure(_ context.Context, ports ...cni.Port) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, port := range ports {
		if _, ok := p.ports[port.Name]; ok || p.fail != nil {
			continue
		}
		if p.ports == nil {
			p.ports, p.installed = make(map[string]cni.Port), make(map[string]chan struct{})
		}
		p.ports[port.Name] = port
		p.installed[port.Name] = make(chan struct{})
		if !p.Hold {
			close(p.installed[port.Name])
		}
	}
	return p.fail
}

// Install does what ovn-controller does: the port's flows are in place.
func (p *Ports) Install(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.installed[name])
}

// Finish implements cni.Ports.
func (p *Ports) Finish(_ context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	port, ok := p.ports[name]
	if !ok {
		return errors.New("the interface's record is gone")
	}
	if p.fail == nil {
		port.Unfinished = false
		p.ports[name] = port
	}
	return p.fail
}

// RemoveAll implements cni.Ports.
func (p *Ports) RemoveAll(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := p.Remove(ctx, name, ""); err != nil {
			return err
		}
	}
	return nil
}

// Withdraw implements cni.Ports.
func (p *Ports) Withdraw(ctx context.Context, name, sandbox string) (settled func(context.Context), err error) {
	return nil, p.Remove(ctx, name, sandbox)
}

// Remove implements cni.Ports.
func (p *Ports) Remove(_ context.Context, name, sandbox string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail == nil && (sandbox == "" || p.ports[name].Sandbox == sandbox) {
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
	pairs map[string]pair
	given map[string]pair // ends of devices that were configured
	gone  map[string]bool // namespaces that have ended
	fail  string
}

// pair is a veth pair, by its host's end.
type pair struct {
	at         cni.Endpoint
	configured bool
}

// FailAt makes the work of a stage fail when it is half done; "" ends that.
func (l *Links) FailAt(stage string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = stage
}

// failing says that a stage fails, if it is to.
func (l *Links) failing(stage string) error {
	if stage == l.fail {
		return errors.New("failed as asked")
	}
	return nil
}

// Create implements cni.Links.
func (l *Links) Create(list ...cni.Pair) error { return each(list, l.create) }

// each stops at the first error.
func each(list []cni.Pair, do func(cni.Device, cni.Endpoint) error) error {
	for _, p := range list {
		if err := do(p.Device, p.Endpoint); err != nil {
			return err
		}
	}
	return nil
}

func (l *Links) create(d cni.Device, e cni.Endpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for host, p := range l.pairs {
		if host != d.Host && p.at.Netns == e.Netns && p.at.IfName == e.IfName {
			return fmt.Errorf("%s has an interface %s already", e.Netns, e.IfName)
		}
	}
	if l.pairs == nil {
		l.pairs = make(map[string]pair)
	}
	l.pairs[d.Host] = pair{at: e}
	return l.failing(cni.StageCreateVeth)
}

// Configure implements cni.Links.
func (l *Links) Configure(list ...cni.Pair) error { return each(list, l.configure) }

func (l *Links) configure(d cni.Device, e cni.Endpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.Given {
		if l.given == nil {
			l.given = make(map[string]pair)
		}
		l.given[d.Host] = pair{e, true}
		return l.failing(cni.StageConfigure)
	}
	p, ok := l.pairs[d.Host]
	if !ok || p.at.Netns != e.Netns {
		return fmt.Errorf("%s is not at %s", d.Host, e.Netns)
	}
	p.configured = true
	l.pairs[d.Host] = p
	return l.failing(cni.StageConfigure)
}

// Announce implements cni.Links.
func (l *Links) Announce(list ...cni.Pair) error { return each(list, l.announce) }

func (l *Links) announce(d cni.Device, _ cni.Endpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.pairs[d.Host].configured && !(d.Given && l.given[d.Host].configured) {
		return fmt.Errorf("%s is not configured", d.Host)
	}
	return l.failing(cni.StageAnnounce)
}

// Route implements cni.Links.
func (l *Links) Route(cni.Endpoint) error { return nil }

// Verify implements cni.Links.
func (l *Links) Verify(d cni.Device, e cni.Endpoint) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pairs[d.Host]
	if d.Given {
		p = l.given[d.Host]
	}
	if !p.configured || p.at.Netns != e.Netns || p.at.IfName != e.IfName {
		return fmt.Errorf("%s is not at %s", d.Host, e.Netns)
	}
	return nil
}

// Delete implements cni.Links.
func (l *Links) Delete(hosts ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, host := range hosts {
		delete(l.pairs, host)
	}
	return nil
}

// End ends a network namespace, and with it the pairs that have an end there.
func (l *Links) End(netns string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone == nil {
		l.gone = make(map[string]bool)
	}
	l.gone[netns] = true
	maps.DeleteFunc(l.pairs, func(_ string, p pair) bool { return p.at.Netns == netns })
}

// Lives implements cni.Links: every namespace that is named does until its End.
func (l *Links) Lives(netns string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return netns != "" && !l.gone[netns]
}

// List implements cni.Links.
func (l *Links) List() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.pairs)), nil
}

// At returns the network namespaces that pods' ends are in, sorted.
func (l *Links) At() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, p := range l.pairs {
		out = append(out, p.at.Netns)
	}
	slices.Sort(out)
	return out
}

// In returns the addresses that are configured in a network namespace.
func (l *Links) In(netns string) []netip.Prefix {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []netip.Prefix
	for _, p := range l.given {
		if p.at.Netns == netns {
			out = append(out, p.at.Addresses...)
		}
	}
	for _, p := range l.pairs {
		if p.at.Netns == netns && p.configured {
			out = append(out, p.at.Addresses...)
		}
	}
	return out
}

// Journal is a file in memory. The zero value is ready.
type Journal struct {
	mu   sync.Mutex // guards held
	held map[string]cni.Held
}

// Hold implements cni.Journal.
func (j *Journal) Hold(p cni.Pod, h cni.Holding) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.held == nil {
		j.held = make(map[string]cni.Held)
	}
	j.held[p.UID+" "+h.Key] = cni.Held{Pod: p, Holding: h}
	return nil
}

// Free implements cni.Journal.
func (j *Journal) Free(uid, key string, since time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if h, ok := j.held[uid+" "+key]; ok && h.Freed.IsZero() {
		h.Freed = since
		j.held[uid+" "+key] = h
	}
	return nil
}

// List implements cni.Journal.
func (j *Journal) List() ([]cni.Held, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Collect(maps.Values(j.held)), nil
}

// Publisher records what is allocated. The zero value is ready.
type Publisher struct {
	mu sync.Mutex // guards the rest
	// held and told are by pod UID
	held map[string][]cni.Attachment
	told map[string]int
}

// Attached implements cni.Publisher.
func (p *Publisher) Attached(pod cni.Pod, all []cni.Attachment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		p.held, p.told = make(map[string][]cni.Attachment), make(map[string]int)
	}
	p.held[pod.UID] = all
	p.told[pod.UID]++
}

// Told is how often Attached was called for a pod.
func (p *Publisher) Told(uid string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[uid]
}

// Released implements cni.Publisher.
func (p *Publisher) Released(pod cni.Pod, left []cni.Attachment, done func()) {
	p.mu.Lock()
	if p.held[pod.UID] = left; len(left) == 0 {
		delete(p.held, pod.UID)
	}
	p.mu.Unlock()
	done()
}

// Held returns a pod's first attachment, zero when it has none.
func (p *Publisher) Held(uid string) cni.Attachment {
	if all := p.All(uid); len(all) > 0 {
		return all[0]
	}
	return cni.Attachment{}
}

// All returns a pod's attachments.
func (p *Publisher) All(uid string) []cni.Attachment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[uid]
}

// Connections is a connection table in memory: who talked, by address. The zero
// value is ready.
type Connections struct {
	mu    sync.Mutex // guards the rest
	table map[netip.Addr]bool
	fail  error
}

// Talk makes a connection of an address.
func (c *Connections) Talk(a netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table == nil {
		c.table = make(map[netip.Addr]bool)
	}
	c.table[a] = true
}

// Has reports whether an address has a connection.
func (c *Connections) Has(a netip.Addr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table[a]
}

// Fail makes every flush fail with err; nil ends that.
func (c *Connections) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

// Flush implements cni.Connections.
func (c *Connections) Flush(_ context.Context, addresses []netip.Addr) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail == nil {
		for _, a := range addresses {
			delete(c.table, a)
		}
	}
	return c.fail
}

// Sweep implements cni.Connections.
func (c *Connections) Sweep(_ context.Context, subnets []netip.Prefix, keep []netip.Addr) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	for a := range c.table {
		inside := slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
		if inside && !slices.Contains(keep, a) {
			delete(c.table, a)
		}
	}
	return nil
}

// Plugins are plugins of others that give an address each, in memory. The zero value is
// ready.
type Plugins struct {
	MAC       string // of the interface in results; "": they have no interface. Set it before use.
	NoGateway bool   // addresses have no gateway. Set it before use.

	mu      sync.Mutex // guards the rest
	records map[string]cni.Delegation
	log     []string
	fail    string
	last    byte
}

// FailAt makes the plugins of a key fail, having begun; "" ends that.
func (p *Plugins) FailAt(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = key
}

// Log returns what was called since it was asked last: "ADD KEY", "DEL KEY".
func (p *Plugins) Log() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	log := p.log
	p.log = nil
	return log
}

// Add implements cni.Plugins: 10.99.0.1 is given first, then .2 and so on.
func (p *Plugins) Add(_ context.Context, d cni.Delegation) (*types100.Result, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.records == nil {
		p.records = make(map[string]cni.Delegation)
	}
	p.log = append(p.log, "ADD "+d.Key)
	if p.records[d.For+d.Sandbox+d.Key] = d; d.Key == p.fail {
		return nil, errors.New("failed as asked")
	}
	p.last++
	d.Result = &types100.Result{CNIVersion: "1.0.0", IPs: []*types100.IPConfig{{
		Address: net.IPNet{IP: net.IP{10, 99, 0, p.last}, Mask: net.CIDRMask(24, 32)}, Gateway: net.IP{10, 99, 0, 254}}}}
	if p.NoGateway {
		d.Result.IPs[0].Gateway = nil
	}
	if p.MAC != "" {
		d.Result.Interfaces = []*types100.Interface{{Name: d.IfName, Mac: p.MAC, Sandbox: d.Netns}}
	}
	p.records[d.For+d.Sandbox+d.Key] = d
	return d.Result, nil
}

// Check implements cni.Plugins.
func (p *Plugins) Check(_ context.Context, d cni.Delegation) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.records[d.For+d.Sandbox+d.Key].Result == nil {
		return errors.New("it is not there")
	}
	return nil
}

// Del implements cni.Plugins.
func (p *Plugins) Del(_ context.Context, d cni.Delegation) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, "DEL "+d.Key)
	if d.Key == p.fail {
		return errors.New("failed as asked")
	}
	delete(p.records, d.For+d.Sandbox+d.Key)
	return nil
}

// List implements cni.Plugins.
func (p *Plugins) List() ([]cni.Delegation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.records)), nil
}
