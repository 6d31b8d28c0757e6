package devices

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/plugin"
	"github.com/portolan-cni/portolan/sriov/podresources"
)

// The pace. Links, functions and drivers that change are heard of, and what is not heard
// of is seen after lookEvery at the latest.
const (
	lookEvery  = 30 * time.Second
	lookGap    = time.Second            // between two rounds that changes have asked for
	lookPause  = 100 * time.Millisecond // from a change to its round: they come in bursts
	justGiven  = 30 * time.Second       // how long the kubelet may not list what it has given
	justChosen = 2 * time.Minute        // how long a device may be chosen and have no record
	firstRetry = 10 * time.Second       // of a NIC that refuses; twice as long each time
	lastRetry  = 5 * time.Minute
)

// Records are of who has which device: *sriov.Keeper.
type Records interface {
	Records() ([]sriov.Record, error)
}

// Count is how many devices of a pool are in one state: well, unwell or used.
type Count struct {
	Pool, Resource, State string
	Devices               int
}

// Config is what Devices are made from. What is nil or "" is not there.
type Config struct {
	Inventory *sriov.Inventory
	Kernel    sriov.Kernel // makes soft devices
	Records   Records
	NICs      *nic.Configurer
	// Plugins is the kubelet's directory of device plugins, and Resources the socket of
	// its pod-resources API; "" where there is no kubelet: nothing is offered, and a
	// device that is named is given as it is.
	Plugins, Resources string
	Soft               sriov.SoftOptions // of soft devices, but for the MTU
	// Uses tells what network devices are for on this node, by name.
	Uses func() map[string]Use
	// Node tells of the devices that the node itself has; they are nobody else's. It must
	// not call Devices. Nil: there never are any.
	Node func() Node
	// Tunneled is told of the addresses that pools have their tunnels begin at, sorted, at
	// each look once all pools are known. It must not block. Nil: nobody is.
	Tunneled func([]netip.Addr)
	Sys      string // sysfs; "": /sys
	// Requests tells how many devices of each resource a pod asks for. Nil: not known.
	Requests func(ctx context.Context, namespace, name string) (map[string]int64, error)
	// Software says why Open vSwitch hands no flows to NICs; nil: it does.
	Software func() error
	// Addresses are those of a network device that tunnels may begin at.
	Addresses func(netdev string) ([]netip.Addr, error)
	// CDI is the directory of CDI files: containers are told of device files by those
	// alone. "": the kubelet is told of each file.
	CDI string
	// Info is the directory of device information files.
	Info    string
	Figures func([]Count) // nil: nobody counts
	Now     func() time.Time
	Log     *slog.Logger
}

// Devices keeps the node's pools. Its methods may be called from anywhere.
type Devices struct {
	config  Config
	log     *slog.Logger
	plugins *plugin.Plugins
	kubelet *podresources.Client
	bell    chan struct{} // holds a token when a round is asked for

	mu       sync.Mutex // guards what follows
	labels   map[string]string
	pools    map[string]*intent.DevicePool
	spaces   map[string]map[string]string // labels of namespaces
	listed   bool
	verified bool
	offers   map[string]offer // by device
	chosen   map[string]chosen
	states   []v1alpha1.NodeDevicePool
	seen     map[string]bool // names of network devices that pools are about
	kept     map[string]bool // devices of the node's of which the kubelet has been told so
	leaving  map[string]bool // devices that are to be taken away when nobody has them
	looked   bool            // offers are what pools offer, by what is known of holders

	// Of Run's goroutine alone.
	jobs   map[string]*job // by NIC
	failed map[string]failure
	known  map[string]bool // resources that were offered by this process
	wrote  string          // the CDI file
	work   sync.WaitGroup
}

// offer is a device that pods can be given.
type offer struct {
	pool   *intent.DevicePool
	device sriov.Device
	shown  plugin.Device
}

// chosen is a device that an interface is about to get.
type chosen struct {
	pod string
	at  time.Time
}

// New makes Devices that have no pools. Close them when done.
func New(c Config) (*Devices, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sys == "" {
		c.Sys = sriov.DefaultSys
	}
	d := &Devices{config: c, log: c.Log, bell: make(chan struct{}, 1), pools: map[string]*intent.DevicePool{}, spaces: map[string]map[string]string{},
		offers: map[string]offer{}, chosen: map[string]chosen{}, seen: map[string]bool{}, jobs: map[string]*job{}, failed: map[string]failure{}, known: map[string]bool{}}
	if c.Plugins != "" {
		d.plugins = plugin.New(plugin.Config{Dir: c.Plugins, Given: d.given, Now: c.Now, Log: c.Log})
	}
	if c.Resources != "" {
		var err error
		if d.kubelet, err = podresources.New(c.Resources); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Close ends the connection to the kubelet.
func (d *Devices) Close() error {
	if d.kubelet == nil {
		return nil
	}
	return d.kubelet.Close()
}

// change changes what is declared, and has a round see it.
func (d *Devices) change(f func()) {
	d.mu.Lock()
	f()
	d.mu.Unlock()
	d.ring()
}

func (d *Devices) ring() {
	select {
	case d.bell <- struct{}{}:
	default:
	}
}

// Label gives the node's labels.
func (d *Devices) Label(labels map[string]string) {
	d.mu.Lock()
	same := d.labels != nil && maps.Equal(d.labels, labels)
	d.mu.Unlock()
	if !same {
		d.change(func() { d.labels = maps.Clone(labels) })
	}
}

// Know takes a pool, or what it has become. Of one that is invalid now, what it was
// before holds, so that a mistake in writing takes nothing away.
func (d *Devices) Know(p *intent.DevicePool) {
	d.change(func() {
		if before := d.pools[p.Name]; p.Invalid != "" && before != nil {
			kept := *before
			kept.Invalid, kept.Generation = p.Invalid, p.Generation
			p = &kept
		} else if p.Invalid != "" {
			p = &intent.DevicePool{Name: p.Name, Generation: p.Generation, Invalid: p.Invalid, Nodes: p.Nodes}
		}
		d.pools[p.Name] = p
	})
}

// unread reports whether a pool was never known but as one that cannot be used.
func unread(p *intent.DevicePool) bool { return p.Resource == "" }

// Forget takes a pool's end.
func (d *Devices) Forget(pool string) { d.change(func() { delete(d.pools, pool) }) }

// Namespace takes a namespace's labels; nil: it is gone.
func (d *Devices) Namespace(name string, labels map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if labels == nil {
		delete(d.spaces, name)
		return
	}
	d.spaces[name] = maps.Clone(labels)
}

// Listed says that all pools, and the labels, have been delivered.
func (d *Devices) Listed() { d.change(func() { d.listed = true }) }

// Verify says that the records of devices have been looked through: what is not in one
// is the node's.
func (d *Devices) Verify() { d.change(func() { d.verified = true }) }

// States tells how each pool of the node stands, by name.
func (d *Devices) States() []v1alpha1.NodeDevicePool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.states)
}

// Problems lists the pools that this node does not have as they ask for.
func (d *Devices) Problems() []rows.Problem {
	var out []rows.Problem
	for _, s := range d.States() {
		switch s.Reason {
		case "", v1alpha1.PoolConfiguring, v1alpha1.PoolDryRun, v1alpha1.PoolNoNIC:
			continue // nothing is wrong, or not with the pool
		}
		out = append(out, rows.Problem{Object: intent.Key{Kind: intent.KindDevicePool, Name: s.Name}.String(), Field: "spec", Severity: rows.Warning, Message: s.Message})
	}
	return out
}

// Offered tells which pool has a device, and as which resource; "" none.
func (d *Devices) Offered(device string) (pool, resource string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if o, ok := d.offers[device]; ok {
		return o.pool.Name, o.pool.Resource
	}
	return "", ""
}

// Trusts implements cni.Devices.
func (d *Devices) Trusts(device, namespace string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id, err := sriov.CanonicalID(device); err == nil {
		device = id
	}
	o, ok := d.offers[device]
	labels, known := d.spaces[namespace]
	return ok && known && o.pool.Trusts(labels)
}

// Run keeps the pools until ctx ends. A NIC that is being changed then is left as far as
// it has come, and gone on with by the next run.
func (d *Devices) Run(ctx context.Context) {
	defer d.work.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	if d.plugins != nil {
		d.work.Go(func() { d.plugins.Run(ctx) })
	}
	changes := sriov.Watch(ctx, d.about)
	poll := time.NewTicker(lookEvery)
	defer poll.Stop()
	for {
		began := time.Now()
		d.round(ctx)
		var soon <-chan time.Time // the kubelet tells nobody that it has registered a resource
		if slices.ContainsFunc(d.States(), func(s v1alpha1.NodeDevicePool) bool { return s.Reason == v1alpha1.PoolKubelet }) {
			soon = time.After(lookGap)
		}
		select {
		case <-ctx.Done():
			return
		case <-d.bell:
			continue
		case <-changes:
		case <-poll.C:
			continue
		case <-soon:
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(lookPause, lookGap-time.Since(began))):
		}
	}
}

// about reports whether a network device is one that pools are about.
func (d *Devices) about(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[name] || strings.HasPrefix(name, "sv-") || strings.HasPrefix(name, "sr-")
}

// selected are the pools that are for this node, by name; false before all are known.
func (d *Devices) selected() (list []*intent.DevicePool, verified, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.pools)) {
		if p := d.pools[name]; p.Nodes.Matches(d.labels) {
			list = append(list, p)
		}
	}
	return list, d.verified, d.listed
}

// holders are who has devices, at one moment.
type holders struct {
	by      map[string]string // who, by device
	records map[string]sriov.Record
	err     error // why it is not known
}

// holders asks all who know, and notes what the node itself has. Order matters: who declares that a device is given to
// nobody, and asks then, knows of everybody who has got it before.
func (d *Devices) holders(ctx context.Context) holders {
	h := holders{by: map[string]string{}, records: map[string]sriov.Record{}}
	records, err := d.config.Records.Records()
	for _, r := range records {
		h.by[r.Device], h.records[r.Device] = "pod "+r.Owner.Pod, r
	}
	if d.kubelet != nil {
		pods, err2 := d.kubelet.List(ctx)
		err = errors.Join(err, err2)
		for _, p := range pods {
			for _, ids := range p.Devices {
				for _, id := range ids {
					if h.by[id] == "" {
						h.by[id] = "pod " + p.String()
					}
				}
			}
		}
	}
	if id := d.taken(); id != "" && h.by[id] == "" {
		h.by[id] = theNode
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, c := range d.chosen {
		if _, has := h.records[id]; has || d.config.Now().Sub(c.at) > justChosen {
			delete(d.chosen, id) // the record says it from here on
		} else if h.by[id] == "" {
			h.by[id] = "pod " + c.pod
		}
	}
	h.err = err
	return h
}

// who has a device, or may have it; "" nobody.
func (d *Devices) who(h holders, id string) string {
	switch {
	case h.by[id] != "":
		return h.by[id]
	case h.err != nil:
		return fmt.Sprintf("nobody knows who: %v", h.err)
	case d.plugins != nil && d.plugins.Recent(id, justGiven):
		return "a pod that was given it just now"
	}
	return ""
}
