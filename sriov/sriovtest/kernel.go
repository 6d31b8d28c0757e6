package sriovtest

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

// noMAC is the administrative MAC of a function that chooses its own.
const noMAC = "00:00:00:00:00:00"

// Kernel plays a machine's kernel, and keeps the machine's sysfs true to it. It refuses
// what a kernel refuses: names that are taken, changes of devices that are up, MTUs that
// the PF has not, settings that a driver does not know.
type Kernel struct {
	m *Machine

	// After is called after each change; it may panic, which is a process's death. Nil:
	// nothing is called.
	After func(op string)
	// Linger is how long it takes until the devices of a namespace that has ended are with
	// the node again.
	Linger time.Duration
	// Stubborn PFs let no administrative MAC be taken back.
	Stubborn bool
	// Exclusive RDMA devices are in one namespace each.
	Exclusive bool

	mu        sync.Mutex // guards what follows
	boot      string
	next      int // index of the next device
	spaces    map[string]*space
	paths     map[string]*space
	host      *space
	pfs       map[string]*pf // by network device
	rdma      map[string]*rdma
	functions map[string]string // MAC by port
	muted     map[string]bool
	fails     map[string]*failure
}

type space struct {
	id    string
	links map[int]*link
	open  int  // handles and paths
	gone  bool // it has ended
}

type link struct {
	sriov.Link
	device string // directory of its device in sysfs; "": none
	port   string // phys_port_name
	sw     string // phys_switch_id
	pf     *pf    // of a VF's device
	vf     int
	peer   *link // of a pair
	in     *space
	sysfs  string // its name there; "": it is not there
	group  uint32
}

type pf struct {
	netdev, driver string
	mode           sriov.Mode
	vfs            map[int]sriov.VFState
}

type rdma struct {
	parent string
	in     *space
}

type failure struct {
	err   error
	times int
}

// NewKernel plays the kernel of a machine as its sysfs shows it.
func NewKernel(m *Machine) *Kernel {
	k := &Kernel{m: m, boot: "boot-1", spaces: map[string]*space{}, paths: map[string]*space{}, pfs: map[string]*pf{}, rdma: map[string]*rdma{},
		functions: map[string]string{}, muted: map[string]bool{}, fails: map[string]*failure{}}
	k.host = k.newSpace()
	names, err := os.ReadDir(m.path("class/net"))
	m.check(err)
	for _, n := range names {
		k.adopt(n.Name())
	}
	for _, l := range k.host.links {
		for _, other := range k.host.links {
			if l.Peer == other.Index && other.Peer == l.Index && l != other {
				l.peer, l.Veth = other, true
			}
		}
	}
	for _, l := range k.host.links {
		k.adoptVF(l)
	}
	return k
}

// adopt takes a network device up from sysfs.
func (k *Kernel) adopt(name string) {
	dir := "class/net/" + name
	number := func(file string) int { n, _ := strconv.Atoi(k.m.Read(dir + "/" + file)); return n }
	optional := func(file string) string {
		if _, err := os.Stat(k.m.path(dir, file)); err != nil {
			return ""
		}
		return k.m.Read(dir + "/" + file)
	}
	l := &link{Link: sriov.Link{Index: number("ifindex"), Name: name, MTU: number("mtu"), MAC: k.m.Read(dir + "/address"), Up: optional("carrier") == "1"},
		port: optional("phys_port_name"), sw: optional("phys_switch_id"), in: k.host}
	if l.MAC == "" {
		l.MAC = fmt.Sprintf("06:00:00:00:%02x:%02x", l.Index>>8, l.Index&0xff)
	}
	if n := number("iflink"); n != l.Index {
		l.Peer = n
	}
	if device, err := filepath.EvalSymlinks(k.m.path(dir, "device")); err == nil {
		l.device = strings.TrimPrefix(device, k.m.Root+"/")
		l.Parent = filepath.Base(device)
	}
	k.host.links[l.Index] = l
	k.next = max(k.next, l.Index+1)
	l.sysfs = l.Name
	k.refresh(l)
}

// adoptVF finds of which PF a VF's network device is, which need not have one.
func (k *Kernel) adoptVF(l *link) {
	if l.device == "" || strings.HasPrefix(l.port, "pf") || strings.HasPrefix(l.port, "c") {
		return
	}
	numvfs, err := os.ReadFile(k.m.path(l.device, "sriov_numvfs"))
	if err != nil {
		return
	}
	driver, _ := os.Readlink(k.m.path(l.device, "driver"))
	p := &pf{netdev: l.Name, driver: filepath.Base(driver), mode: sriov.Legacy, vfs: map[int]sriov.VFState{}}
	if l.sw != "" {
		p.mode = sriov.Switchdev
	}
	k.pfs[l.Name] = p
	count, _ := strconv.Atoi(strings.TrimSpace(string(numvfs)))
	for vf := range count {
		p.vfs[vf] = sriov.VFState{MAC: noMAC, Proto: "802.1q", Spoofchk: "on", Trust: "off", LinkState: "auto"}
		target, err := filepath.EvalSymlinks(k.m.path(l.device, "virtfn"+strconv.Itoa(vf)))
		k.m.check(err)
		device := strings.TrimPrefix(target, k.m.Root+"/")
		for _, other := range k.host.links {
			if other.device == device {
				other.pf, other.vf = p, vf
			}
		}
		if names, err := os.ReadDir(k.m.path(device, "infiniband")); err == nil {
			for _, n := range names {
				k.rdma[n.Name()] = &rdma{device, k.host}
			}
		}
	}
}

func (k *Kernel) newSpace() *space {
	s := &space{id: fmt.Sprintf("4:%d", 4026531840+len(k.spaces)), links: map[int]*link{}, open: 1}
	k.spaces[s.id] = s
	return s
}

// refresh makes sysfs show a device where it is now, by the name it has.
func (k *Kernel) refresh(l *link) {
	if l.sysfs != "" {
		k.m.Drop(l.sysfs)
		l.sysfs = ""
	}
	if l.in == k.host {
		k.m.Add(Netdev{Name: l.Name, Device: l.device, Index: l.Index, Link: l.Peer, MTU: l.MTU, MAC: l.MAC, PortName: l.port, SwitchID: l.sw, Up: l.Up, Group: l.group})
		l.sysfs = l.Name
	}
}

// done ends a change: it is made, and then the process may die.
func (k *Kernel) done(op string, err error) error {
	k.mu.Unlock()
	if err == nil && k.After != nil {
		k.After(op)
	}
	return err
}

// begin begins a call, which may be made to fail.
func (k *Kernel) begin(op string) error {
	k.mu.Lock()
	return k.fail(op)
}

// fail is the error that a call, or a part of one, is to have; k.mu is held.
func (k *Kernel) fail(op string) error {
	if f := k.fails[op]; f != nil && f.times != 0 {
		f.times--
		return f.err
	}
	return nil
}

// Fail makes the next calls of a method fail; times under 0: all.
func (k *Kernel) Fail(op string, err error, times int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fails[op] = &failure{err, times}
}

// handle is an open namespace.
type handle struct {
	k *Kernel
	s *space
}

// ID implements sriov.Namespace.
func (h handle) ID() string { return h.s.id }

// Close implements sriov.Namespace.
func (h handle) Close() error {
	h.k.mu.Lock()
	defer h.k.mu.Unlock()
	h.k.release(h.s)
	return nil
}

// release ends a namespace that nobody has open any more: what is of a NIC goes back to
// the node, down, and other devices are destroyed.
func (k *Kernel) release(s *space) {
	if s == k.host || s.gone {
		return
	}
	if s.open--; s.open > 0 {
		return
	}
	s.gone = true
	var back []*link
	for _, l := range s.links {
		if l.Up = false; l.device != "" {
			back = append(back, l)
			l.in = nil
			k.refresh(l)
			continue
		}
		k.destroy(l)
	}
	s.links = map[int]*link{}
	for _, r := range k.rdma {
		if r.in == s {
			r.in = k.host
		}
	}
	if k.Linger > 0 {
		time.AfterFunc(k.Linger, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.giveBack(back)
		})
		return
	}
	k.giveBack(back)
}

func (k *Kernel) giveBack(links []*link) {
	for _, l := range links {
		// The kernel drops other names that are taken, and gives one of its own for a name
		// that is.
		l.AltNames = slices.DeleteFunc(l.AltNames, func(n string) bool { return k.taken(k.host, n, nil) })
		for n := 0; k.taken(k.host, l.Name, l); n++ {
			l.Name = fmt.Sprintf("dev%d", n)
		}
		l.in = k.host
		k.index(l)
		k.host.links[l.Index] = l
		k.refresh(l)
	}
}

// index gives a device another index where its own is taken.
func (k *Kernel) index(l *link) {
	if l.in.links[l.Index] != nil && l.in.links[l.Index] != l {
		l.Index = k.next
		k.next++
		if l.peer != nil {
			l.peer.Peer = l.Index
		}
	}
}

// destroy removes a virtual device, and the other end of a pair.
func (k *Kernel) destroy(l *link) {
	for _, end := range []*link{l, l.peer} {
		if end == nil || end.in == nil {
			continue
		}
		delete(end.in.links, end.Index)
		end.in = nil
		k.refresh(end)
	}
}

func (k *Kernel) taken(s *space, name string, but *link) bool {
	for _, l := range s.links {
		if l != but && (l.Name == name || slices.Contains(l.AltNames, name)) {
			return true
		}
	}
	return false
}

// Sandbox makes a namespace with a path.
func (k *Kernel) Sandbox(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paths[path] = k.newSpace()
}

// End ends a sandbox.
func (k *Kernel) End(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.paths[path]; s != nil {
		delete(k.paths, path)
		k.release(s)
	}
}

// Die ends what a process had open: its temporary namespaces.
func (k *Kernel) Die() {
	k.mu.Lock()
	defer k.mu.Unlock()
	named := map[*space]bool{k.host: true}
	for _, s := range k.paths {
		named[s] = true
	}
	for _, s := range k.spaces {
		if s.gone {
			continue
		}
		if s.open = 1; !named[s] {
			k.release(s)
		}
	}
}

// Reboot makes the machine another run; what it had made of devices is gone.
func (k *Kernel) Reboot() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.boot += "+"
}

// Host implements sriov.Kernel.
func (k *Kernel) Host() sriov.Namespace { return handle{k, k.host} }

// Boot implements sriov.Kernel.
func (k *Kernel) Boot() (string, error) { return k.boot, nil }

// Open implements sriov.Kernel.
func (k *Kernel) Open(path string) (sriov.Namespace, error) {
	err := k.begin("Open")
	defer k.mu.Unlock()
	s := k.paths[path]
	if err == nil && s == nil {
		err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	s.open++
	return handle{k, s}, nil
}

// Temporary implements sriov.Kernel.
func (k *Kernel) Temporary() (sriov.Namespace, error) {
	if err := k.begin("Temporary"); err != nil {
		return nil, k.done("Temporary", err)
	}
	s := k.newSpace()
	return handle{k, s}, k.done("Temporary", nil)
}

func spaceOf(ns sriov.Namespace) *space { return ns.(handle).s }

// Link implements sriov.Kernel.
func (k *Kernel) Link(ns sriov.Namespace, name string) (sriov.Link, error) {
	err := k.begin("Link")
	defer k.mu.Unlock()
	if err != nil {
		return sriov.Link{}, err
	}
	for _, l := range spaceOf(ns).links {
		if l.Name == name || slices.Contains(l.AltNames, name) {
			return l.shown(), nil
		}
	}
	return sriov.Link{}, fmt.Errorf("%s: %w", name, sriov.ErrNoLink)
}

func (l *link) shown() sriov.Link {
	out := l.Link
	out.AltNames = slices.Clone(l.AltNames)
	return out
}

// Links implements sriov.Kernel.
func (k *Kernel) Links(ns sriov.Namespace) ([]sriov.Link, error) {
	err := k.begin("Links")
	defer k.mu.Unlock()
	var out []sriov.Link
	for _, l := range spaceOf(ns).links {
		out = append(out, l.shown())
	}
	slices.SortFunc(out, func(a, b sriov.Link) int { return cmp.Compare(a.Index, b.Index) })
	return out, err
}

// change changes a device.
func (k *Kernel) change(op string, ns sriov.Namespace, index int, f func(l *link) error) error {
	err := k.begin(op)
	if err == nil {
		if l := spaceOf(ns).links[index]; l != nil {
			if err = f(l); spaceOf(ns) == k.host {
				k.refresh(l)
			}
		} else {
			err = unix.ENODEV
		}
	}
	return k.done(op, err)
}

// SetUp implements sriov.Kernel.
func (k *Kernel) SetUp(ns sriov.Namespace, index int, up bool) error {
	return k.change("SetUp", ns, index, func(l *link) error {
		if up && !l.Up && l.pf != nil && l.pf.driver == "igb" && l.pf.vfs[l.vf].MAC != noMAC {
			l.MAC = l.pf.vfs[l.vf].MAC // it begins anew, and asks the PF
		}
		l.Up = up
		return nil
	})
}

// AddAltName implements sriov.Kernel.
func (k *Kernel) AddAltName(ns sriov.Namespace, index int, name string) error {
	return k.change("AddAltName", ns, index, func(l *link) error {
		if k.taken(l.in, name, nil) {
			return unix.EEXIST
		}
		l.AltNames = append(l.AltNames, name)
		return nil
	})
}

// DelAltName implements sriov.Kernel.
func (k *Kernel) DelAltName(ns sriov.Namespace, index int, name string) error {
	return k.change("DelAltName", ns, index, func(l *link) error {
		if !slices.Contains(l.AltNames, name) {
			return unix.EINVAL
		}
		l.AltNames = slices.DeleteFunc(l.AltNames, func(n string) bool { return n == name })
		return nil
	})
}

// Set implements sriov.Kernel.
func (k *Kernel) Set(ns sriov.Namespace, index int, c sriov.Change) error {
	return k.change("Set", ns, index, func(l *link) error { return k.set(l, c) })
}

// Move implements sriov.Kernel.
func (k *Kernel) Move(from sriov.Namespace, index int, to sriov.Namespace, c sriov.Change) error {
	if err := k.begin("Move"); err != nil {
		return k.done("Move", err)
	}
	l, target := spaceOf(from).links[index], spaceOf(to)
	switch {
	case l == nil:
		return k.done("Move", unix.ENODEV)
	case target.gone:
		return k.done("Move", unix.EINVAL)
	}
	name := l.Name
	if k.taken(target, name, nil) {
		name = c.Name // the kernel takes the new one then
	}
	for _, name := range append([]string{name}, l.AltNames...) {
		if name == "" || k.taken(target, name, nil) {
			return k.done("Move", unix.EEXIST)
		}
	}
	delete(l.in.links, index)
	l.in, l.Up, l.Name = target, false, name
	k.index(l)
	target.links[l.Index] = l
	err := k.set(l, c)
	k.refresh(l)
	return k.done("Move", err)
}

// Mute implements sriov.Kernel.
func (k *Kernel) Mute(name string) error {
	err := k.begin("Mute")
	if err == nil && !k.taken(k.host, name, nil) {
		err = fs.ErrNotExist
	}
	k.muted[name] = true
	return k.done("Mute", err)
}

func (k *Kernel) sorted() []*link {
	return slices.SortedFunc(maps.Values(k.host.links), func(a, b *link) int { return cmp.Compare(a.Name, b.Name) })
}
