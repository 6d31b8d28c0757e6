package cni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/sriov"
)

// defaultNetwork is the name of the cluster's own pod network.
const defaultNetwork = "default"

// defaultInterface is what runtimes call the default network's interface; an
// allocation is published under that name before the runtime has said so.
const defaultInterface = "eth0"

// Attachment is what a pod has been given on one network.
type Attachment struct {
	Pod       Pod
	Key       string // "default", or the definition: "namespace/nad[/index]"
	Network   string // the logical network's name; "default"
	IfName    string
	MTU       int // of the interface; 0: the kernel's default
	Bandwidth Bandwidth
	// Result is what was said of the interface by the last plugin; only in Status.
	Result *types100.Result
	Device *multus.DeviceInfo // of a function; nil: it is none; only in Status
	Grant
}

// Definition is "default", or the attachment's definition.
func (a Attachment) Definition() string { return definitionOf(a.Key) }

// Publisher learns of allocations. Its methods must not block: the caller is in
// the middle of an ADD. It writes the pod's annotation beside the path.
type Publisher interface {
	// Attached says what a pod has been given, all of it; also at Recover, and more
	// than once for one pod.
	Attached(p Pod, all []Attachment)
	// Released says that a pod has this left of what it had: nothing, when it is gone.
	// What it has lost begins to rest when done is called: at once, or later, when no
	// row names it any more.
	Released(p Pod, left []Attachment, done func())
}

// Config is what an Agent needs. Pods, Ports, Links, Publisher and Pool are
// required.
type Config struct {
	Pods  Pods
	Ports Ports
	Links Links
	// Connections forgets those of addresses that are about to be free. Nil: there
	// is nothing that remembers any.
	Connections Connections
	Publisher   Publisher
	Pool        *alloc.Pool    // of the default network
	Networks    Networks       // the others; nil: there are none
	Plugins     Plugins        // those of others; nil: none are run
	Devices     Devices        // nil: an interface has the device that its caller names, else a pair
	Keeper      *sriov.Keeper  // of devices, with a Switch of Ports; nil: there are none
	Cluster     []netip.Prefix // what the default network's interface leads to when the default route is another's
	DeviceInfo  string         // directory that device information is written below, for callers that ask for a file; "": /run/k8s.cni.cncf.io/devinfo
	Journal     Journal        // nil: only OVS records and annotations outlive the process
	MTU         int            // of the default network's interfaces, in bytes; 0: the kernel's default
	Timeout     time.Duration  // of one call; 0: 60 s
	Workers     int            // pods prepared or forgotten at once; 0: 4
	Patience    time.Duration  // with a device whose last pod is on its way; 0: 5 s
	// Generation is that of the first port of an attachment: another one in each process,
	// or a port could get the name of one that OVS is still letting go.
	Generation int
	Log        *slog.Logger // nil: slog.Default

	// Written says why a port that OVN has installed is not the pod's: a row of somebody
	// else's has its name. May be nil.
	Written func(context.Context, Pod) error
	// Ready says why no ADD can be served, nil when it can: STATUS. May be nil.
	Ready func() error
	// Status says what a pod has that was attached with all its networks in one call,
	// the default one first: it becomes the pod's network-status. May be nil.
	Status func(p Pod, all []Attachment)
	// Tell says of a pod for what it waits, or why it is refused a network; "" that
	// nothing is wrong any more. May be nil.
	Tell func(p Pod, message string)
	// Fell says of an interface, by its key, why it has no device of hardware though its
	// definition prefers one; "" that this is so no more. May be nil.
	Fell func(p Pod, key, reason string)
	// Repaired hears of what was not as it should be and is now. May be nil.
	Repaired func(Repair)
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
	home      Network // the default one
	log       *slog.Logger
	recovered atomic.Bool

	sandboxes *keyed // by container id; taken before pods
	pods      *keyed // by pod UID
	functions *keyed // by container id and interface: calls of type sriov, which take none of the others

	mu        sync.Mutex        // guards what follows, not what an entry holds
	entries   map[string]*entry // by pod UID
	owners    map[string]string // container id → pod UID
	devices   map[string]string // host's end that an interface has, or that is being made or removed → pod UID
	leaving   map[string]*int   // owner of addresses that begin to rest when a row is gone → which leaving
	told      map[string]string // by pod UID, what Tell was told last
	preparing *queue
	progress  *progress

	comparing chan struct{}   // holds a token while nobody compares
	doubts    map[string]bool // of the one that compares: what it found, and waits with
}

// entry is what the agent remembers of a pod. It is read and changed under the
// pod's lock.
type entry struct {
	pod    Pod
	ifaces []*iface // in the order in which they are attached
	first  int      // generation of an interface's first port
	gone   bool     // the pod is gone, but its sandbox is not yet
}

// iface is one interface of a pod.
type iface struct {
	wish       Wish
	network    Network // Addresses is nil where the network is not known any more
	port       Port    // its sandbox's; zero Name: there is none
	function   function
	generation int // of the next port
	grant      Grant
	granted    bool
	published  bool
	// What plugins of others have begun for the sandbox that has the interface; nil: nothing.
	chained *Delegation
	leased  *Delegation // its addresses
	// withdrawn is closed when no row names addresses any more that a plugin had given;
	// nil: they are not withdrawn.
	withdrawn chan struct{}
}

// sandbox that has the interface, or a part of it; "": none.
func (i *iface) sandbox() string {
	switch {
	case i.port.Sandbox != "":
		return i.port.Sandbox
	case i.chained != nil:
		return i.chained.Sandbox
	case i.leased != nil:
		return i.leased.Sandbox
	}
	return ""
}

// bare reports whether nothing of the interface is there.
func (i *iface) bare() bool { return i.port.Name == "" && i.chained == nil && i.leased == nil }

func (e *entry) iface(key string) *iface {
	for _, i := range e.ifaces {
		if i.wish.Key == key {
			return i
		}
	}
	return nil
}

// attached lists the interfaces that a sandbox has; of any sandbox for "".
func (e *entry) attached(sandbox string) []*iface {
	var out []*iface
	for _, i := range e.ifaces {
		if !i.bare() && (sandbox == "" || i.sandbox() == sandbox) {
			out = append(out, i)
		}
	}
	return out
}

// want is the interface of a wish, which is made when there is none.
func (e *entry) want(w Wish, n Network) *iface {
	i := e.iface(w.Key)
	if i == nil {
		i = &iface{generation: e.first}
		e.ifaces = append(e.ifaces, i)
	}
	if i.bare() { // what is attached stays as it is
		i.wish, i.network = w, n
	}
	return i
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
	if c.Patience == 0 {
		c.Patience = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.DeviceInfo == "" {
		c.DeviceInfo = defaultDeviceInfo
	}
	if c.Networks == nil {
		c.Networks = none{}
	}
	if c.Plugins == nil {
		c.Plugins = noPlugins{}
	}
	a := &Agent{
		config: c, log: c.Log, home: Network{Name: defaultNetwork, MTU: c.MTU, Addresses: PoolAddresses{Pool: c.Pool, Cluster: c.Cluster}}, sandboxes: newKeyed(), pods: newKeyed(), functions: newKeyed(),
		entries: make(map[string]*entry), owners: make(map[string]string), preparing: newQueue(), progress: newProgress(),
		devices: make(map[string]string), leaving: make(map[string]*int), told: make(map[string]string),
		comparing: make(chan struct{}, 1),
	}
	a.comparing <- struct{}{}
	return a, nil
}

// entryOf returns the pod's entry, which is made when there is none.
func (a *Agent) entryOf(p Pod) *entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entries[p.UID]
	if e == nil {
		e = &entry{first: a.config.Generation}
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

// setOwner gives the port of an interface of e to a sandbox; "" takes it away.
func (a *Agent) setOwner(e *entry, i *iface, sandbox string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	had := i.port.Sandbox
	i.port.Sandbox = sandbox
	if had != "" && len(e.attached(had)) == 0 {
		delete(a.owners, had)
	}
	if sandbox != "" {
		a.owners[sandbox] = e.pod.UID
	}
}

func (i *iface) attachment() Attachment {
	at := Attachment{Pod: i.wish.Pod, Key: i.wish.Key, Network: i.network.Name, IfName: i.wish.IfName, Bandwidth: i.wish.Bandwidth, Grant: i.grant}
	if i.port.IfName != "" {
		at.IfName = i.port.IfName
	}
	return at
}

// granted lists what the pod has been given.
func (e *entry) granted() []Attachment {
	out := make([]Attachment, 0, len(e.ifaces))
	for _, i := range e.ifaces {
		if i.granted {
			out = append(out, i.attachment())
		}
	}
	return out
}

// device is the pair of the interface's port.
func (i *iface) device() Device {
	of := i.wish.Key
	if of == defaultNetwork {
		of = defaultInterface
	}
	d := deviceOf(i.wish.Pod.UID, of, i.port.Generation)
	d.MAC, d.MTU = i.grant.MAC, i.network.MTU
	if i.port.Device != "" {
		d.Host, d.Given = i.port.Name, true
	}
	d.Alias = "portolan " + i.wish.Pod.String()
	if i.wish.Key != defaultNetwork {
		d.Alias += " " + i.wish.Key
	}
	return d
}

// allocate gives the interfaces their addresses, unless they have them, and
// publishes them together: from then on OVN makes its half of the ports.
func (a *Agent) allocate(ctx context.Context, t *trace, e *entry, list ...*iface) error {
	if err := t.enter(ctx, StageAllocate); err != nil {
		return err
	}
	var errs []error
	for _, i := range list {
		if err := a.give(ctx, i); err != nil {
			errs = append(errs, err)
		}
	}
	a.publish(e)
	return errors.Join(errs...)
}

func (a *Agent) give(ctx context.Context, i *iface) error {
	a.stays(i.wish.Owner())
	w := i.wish
	if i.leased != nil {
		w.IPs = nil // the plugin was asked for them
	}
	grant, err := i.network.Addresses.Give(ctx, w)
	if err != nil {
		if i.wish.Key != defaultNetwork {
			err = fmt.Errorf("network %s (%s): %w", i.network.Name, i.wish.Key, err)
		}
		return err
	}
	if i.leased != nil {
		grant = grant.lease(i.wish, i.leased.Result)
	}
	if i.published && slices.Equal(i.grant.Addresses, grant.Addresses) && i.grant.Encap == grant.Encap {
		i.grant = grant // its routes may have changed
		return nil
	}
	if i.leased == nil && a.config.Journal != nil && len(grant.Addresses) > 0 { // before anybody is told
		if err := a.config.Journal.Hold(i.wish.Pod, i.held(grant.Addresses)); err != nil {
			return err
		}
	}
	i.grant, i.granted, i.published, i.withdrawn = grant, true, false, nil
	return nil
}

func (i *iface) held(addresses []netip.Prefix) Holding {
	return Holding{Key: i.wish.Key, Network: i.network.Name, Addresses: addresses}
}

// publish says what a pod that is not gone has been given, if that is news.
func (a *Agent) publish(e *entry) {
	news := false
	for _, i := range e.ifaces {
		news = news || i.granted && !i.published
	}
	if e.gone || !news {
		return
	}
	all := e.granted()
	a.progress.given(e.pod, all, a.recovered.Load())
	a.config.Publisher.Attached(e.pod, all)
	for _, i := range e.ifaces {
		i.published = i.granted
	}
}
