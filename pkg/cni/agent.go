package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
)

// defaultNetwork is the name of the cluster's own pod network.
const defaultNetwork = "default"

// defaultInterface is what the runtime calls the default network's interface; ports
// are prepared under that name before it has said so.
const defaultInterface = "eth0"

// Attachment is what a pod has been given on one network.
type Attachment struct {
	Pod       Pod
	Network   string // "default"
	IfName    string
	MAC       string // lower case with colons
	Addresses []netip.Prefix
	Gateways  []netip.Addr
}

// Publisher learns of allocations. Its methods must not block: the caller is in
// the middle of an ADD. It writes the pod's annotation beside the path.
type Publisher interface {
	// Attached says that a pod has these addresses; also at Recover, and more than
	// once for one pod.
	Attached(a Attachment)
	// Released says that the pod's addresses are free, its port gone.
	Released(a Attachment)
}

// Config is what an Agent needs. Pods, Ports, Links, Publisher and Pool are
// required.
type Config struct {
	Pods      Pods
	Ports     Ports
	Links     Links
	Concealer Concealer // nil on the kernel datapath
	Publisher Publisher
	Pool      *alloc.Pool
	MTU       int           // of pod interfaces, in bytes; 0: the kernel's default
	Timeout   time.Duration // of one call; 0: 60 s
	Workers   int           // ports prepared at once; 0: 4
	Log       *slog.Logger  // nil: slog.Default

	// Ready says why no ADD can be served, nil when it can: STATUS. May be nil.
	Ready func() error
	// Observe receives the time that each stage took. May be nil.
	Observe func(command, stage string, d time.Duration)
	// AtStage is called when a call enters a stage. Nil but in fault tests.
	AtStage func(command, stage string)
}

// The time that undoing a failed ADD may take, after the call's own time is up.
const rollbackTime = 10 * time.Second

const defaultTimeout = 60 * time.Second

// Agent owns the attachments of a node.
type Agent struct {
	config    Config
	log       *slog.Logger
	recovered atomic.Bool

	sandboxes *keyed // by container id; taken before pods
	pods      *keyed // by pod UID

	mu        sync.Mutex        // guards entries and owners, not what an entry holds
	entries   map[string]*entry // by pod UID
	owners    map[string]string // container id → pod UID
	preparing *queue
	concealed *names // devices that are gone, whose chains are still there
}

// entry is what the agent remembers of a pod. It is read and changed under the
// pod's lock.
type entry struct {
	pod        Pod
	port       Port // zero Name: there is none
	generation int  // of the next port
	addresses  []netip.Prefix
	published  bool
	retired    bool // a sandbox has been deleted: no port is prepared until the next ADD
	gone       bool // the pod is gone, but its sandbox is not yet
}

// New makes an Agent. Call Recover once the pods are known, then Run and Serve.
func New(c Config) (*Agent, error) {
	for name, missing := range map[string]bool{
		"Pods": c.Pods == nil, "Ports": c.Ports == nil, "Links": c.Links == nil,
		"Publisher": c.Publisher == nil, "Pool": c.Pool == nil,
	} {
		if missing {
			return nil, fmt.Errorf("cni agent: %s is not set", name)
		}
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Workers == 0 {
		c.Workers = 4
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Agent{
		config: c, log: c.Log, sandboxes: newKeyed(), pods: newKeyed(),
		entries: make(map[string]*entry), owners: make(map[string]string), preparing: newQueue(),
		concealed: newNames(),
	}, nil
}

// entryOf returns the pod's entry, which is made when there is none.
func (a *Agent) entryOf(p Pod) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[p.UID]
	if e == nil {
		e = &entry{}
		a.entries[p.UID] = e
	}
	e.pod = p
	return e
}

func (a *Agent) lookup(uid string) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.entries[uid]
}

func (a *Agent) drop(uid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.entries, uid)
}

func (a *Agent) ownerOf(sandbox string) (uid string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	uid, ok = a.owners[sandbox]
	return uid, ok
}

// setOwner moves the port of e from its sandbox to another; "" for none.
func (a *Agent) setOwner(e *entry, sandbox string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.port.Sandbox != "" {
		delete(a.owners, e.port.Sandbox)
	}
	if e.port.Sandbox = sandbox; sandbox != "" {
		a.owners[sandbox] = e.pod.UID
	}
}

func (a *Agent) attachment(e *entry) Attachment {
	at := Attachment{Pod: e.pod, Network: defaultNetwork, IfName: defaultInterface, Addresses: e.addresses}
	if e.port.IfName != "" {
		at.IfName = e.port.IfName
	}
	at.MAC = alloc.MACOf(e.addresses).String()
	for _, p := range e.addresses {
		at.Gateways = append(at.Gateways, alloc.Gateway(p))
	}
	return at
}

// device is the pair of e's port.
func (a *Agent) device(e *entry) Device {
	d := deviceOf(e.pod.UID, defaultInterface, e.port.Generation)
	d.MAC, d.MTU = alloc.MACOf(e.addresses), a.config.MTU
	d.Alias = "portolan " + e.pod.String()
	return d
}

// ensure gives the pod addresses, a veth pair and an OVS port, unless it has them.
// What it made is undone when it fails; the addresses stay the pod's.
func (a *Agent) ensure(ctx context.Context, t *trace, e *entry) error {
	if e.port.Name != "" {
		return nil
	}
	if err := t.enter(ctx, StageAllocate); err != nil {
		return err
	}
	addresses, err := a.config.Pool.Allocate(e.pod.UID)
	if err != nil {
		return err
	}
	e.addresses = addresses
	if !e.published {
		a.config.Publisher.Attached(a.attachment(e))
		e.published = true
	}
	e.port = Port{Pod: e.pod, IfName: defaultInterface, Addresses: addresses, Generation: e.generation,
		MAC: alloc.MACOf(addresses).String()}
	d := a.device(e)
	for a.concealed.has(d.Host) { // forgotten and bound again within a second
		e.generation++
		e.port.Generation = e.generation
		d = a.device(e)
	}
	e.port.Name, t.port = d.Host, d.Host
	if err := a.make(ctx, t, e.port, d); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		return errors.Join(err, a.discard(undo, nil, e))
	}
	return nil
}

func (a *Agent) make(ctx context.Context, t *trace, p Port, d Device) error {
	if err := t.enter(ctx, StageCreateVeth); err != nil {
		return err
	}
	if err := a.config.Links.Create(d); err != nil {
		return err
	}
	if a.config.Concealer != nil {
		if err := t.enter(ctx, StageConceal); err != nil {
			return err
		}
		if err := a.config.Concealer.Conceal(ctx, d.Host); err != nil {
			return err
		}
	}
	if err := t.enter(ctx, StageCreatePort); err != nil {
		return err
	}
	return a.config.Ports.Ensure(ctx, p)
}

// discard removes e's pair and port. The record goes last of what Recover looks
// for; a chain left behind is swept at start. It stops at an error, so that a
// record never outlives being needed, nor is lost before. The chain hides nothing
// any more and its name does not come again, so it may wait for reveal: removing
// one costs an nft and an RCU grace period, 15 ms. t may be nil.
func (a *Agent) discard(ctx context.Context, t *trace, e *entry) error {
	if e.port.Name == "" {
		return nil
	}
	enter := func(stage string) error {
		if t == nil {
			return nil
		}
		return t.enter(ctx, stage)
	}
	if err := enter(StageRemoveVeth); err != nil {
		return err
	}
	if err := a.config.Links.Delete(e.port.Name); err != nil {
		return err
	}
	if err := enter(StageRemovePort); err != nil {
		return err
	}
	if err := a.config.Ports.Remove(ctx, e.port.Name); err != nil {
		return err
	}
	name := e.port.Name
	a.setOwner(e, "")
	e.port, e.generation = Port{}, e.port.Generation+1
	if a.config.Concealer != nil {
		a.concealed.put(name)
	}
	return nil
}
