package sriovtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Tree is a sysfs below a directory.
type Tree struct {
	Root string
	tb   testing.TB
	next int // index of the next network device
}

// Dir makes a directory that goes with the test, in memory where that can be had: a tree
// has hundreds of files, and records are synced.
func Dir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "portolan-sriov-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// NewTree makes an empty sysfs, which goes with the test.
func NewTree(tb testing.TB) *Tree {
	tb.Helper()
	t := &Tree{Root: Dir(tb), tb: tb, next: 2}
	for _, dir := range []string{"class/net", "bus/pci/devices", "bus/pci/drivers", "bus/auxiliary/devices", "devices/virtual/net"} {
		t.dir(dir)
	}
	return t
}

func (t *Tree) path(parts ...string) string {
	return filepath.Join(append([]string{t.Root}, parts...)...)
}

func (t *Tree) check(err error) {
	if err != nil {
		t.tb.Helper()
		t.tb.Fatal(err)
	}
}

func (t *Tree) dir(path string) { t.check(os.MkdirAll(t.path(path), 0o755)) }

// Write writes a file of one value.
func (t *Tree) Write(path, value string) {
	t.dir(filepath.Dir(path))
	t.check(os.WriteFile(t.path(path), []byte(value+"\n"), 0o644))
}

// Link makes a symbolic link, relative as the kernel's are, or leads it elsewhere.
func (t *Tree) Link(path, target string) {
	t.dir(filepath.Dir(path))
	// The kernel's links end in what they lead to, also where that is above them.
	relative, err := filepath.Rel(filepath.Dir(path), filepath.Dir(target))
	t.check(err)
	t.Remove(path)
	t.check(os.Symlink(relative+"/"+filepath.Base(target), t.path(path)))
}

// Remove removes a file, a link or a directory.
func (t *Tree) Remove(path string) { t.check(os.RemoveAll(t.path(path))) }

// Read reads a file of one value.
func (t *Tree) Read(path string) string {
	b, err := os.ReadFile(t.path(path))
	t.check(err)
	return strings.TrimSpace(string(b))
}

// PCI makes a PCI device below a bridge, with a driver if one is named.
func (t *Tree) PCI(address string, files map[string]string, driver string) (dir string) {
	dir = "devices/pci" + address[:7] + "/" + address[:7] + ":1f.0/" + address
	for name, value := range files {
		t.Write(dir+"/"+name, value)
	}
	t.dir(dir)
	t.Link("bus/pci/devices/"+address, dir)
	t.Link(dir+"/subsystem", "bus/pci")
	t.Bind("pci", address, driver)
	return dir
}

// Bind binds a device to a driver; "" to none.
func (t *Tree) Bind(bus, id, driver string) {
	dir, err := filepath.EvalSymlinks(t.path("bus", bus, "devices", id))
	t.check(err)
	link := strings.TrimPrefix(dir, t.Root+"/") + "/driver"
	if driver == "" {
		t.Remove(link)
		return
	}
	t.dir("bus/" + bus + "/drivers/" + driver)
	t.Link(link, "bus/"+bus+"/drivers/"+driver)
}

// Netdev is a network device as sysfs shows it.
type Netdev struct {
	Name     string
	Device   string // directory of the device that it is of; "": it is virtual
	Index    int    // 0: the next one
	Link     int    // iflink; 0: Index
	MTU      int
	MAC      string
	PortName string // phys_port_name; "": its driver has none
	SwitchID string
	Up       bool
	Group    uint32 // link group
}

// Add makes a network device, and returns its index.
func (t *Tree) Add(n Netdev) int {
	if n.Index == 0 {
		n.Index = t.next
	}
	t.next = max(t.next, n.Index+1)
	if n.Link == 0 {
		n.Link = n.Index
	}
	parent := n.Device
	if parent == "" {
		parent = "devices/virtual"
	}
	dir := parent + "/net/" + n.Name
	carrier := "0"
	if n.Up {
		carrier = "1"
	}
	files := map[string]string{"ifindex": strconv.Itoa(n.Index), "iflink": strconv.Itoa(n.Link), "mtu": strconv.Itoa(n.MTU), "address": n.MAC, "carrier": carrier, "netdev_group": strconv.Itoa(int(n.Group))}
	if n.PortName != "" {
		files["phys_port_name"] = n.PortName
	}
	if n.SwitchID != "" {
		files["phys_switch_id"] = n.SwitchID
	}
	for name, value := range files {
		t.Write(dir+"/"+name, value)
	}
	if n.Device != "" {
		t.Link(dir+"/device", n.Device)
	}
	t.Link("class/net/"+n.Name, dir)
	return n.Index
}

// Drop takes a network device away, as one that is moved to another namespace is.
func (t *Tree) Drop(name string) {
	dir, err := filepath.EvalSymlinks(t.path("class/net", name))
	t.check(err)
	t.Remove("class/net/" + name)
	t.check(os.RemoveAll(dir))
}

// Bond puts network devices into a bond.
func (t *Tree) Bond(name, mode string, members ...string) {
	t.Add(Netdev{Name: name, MTU: 1500, Up: true})
	t.Write("devices/virtual/net/"+name+"/bonding/mode", mode)
	for _, m := range members {
		dir, err := filepath.EvalSymlinks(t.path("class/net", m))
		t.check(err)
		t.Link(strings.TrimPrefix(dir, t.Root+"/")+"/master", "devices/virtual/net/"+name)
	}
}

// Soft makes the soft device of a label; the function's end only while no pod has it.
func (t *Tree) Soft(label string, here bool) {
	index := t.Add(Netdev{Name: "sr-" + label, MTU: 1500, Link: t.next + 1, Up: true})
	if here {
		t.Add(Netdev{Name: "sv-" + label, MTU: 1500, Index: index + 1, Link: index})
	}
	t.next = index + 2
}

// Auxiliary makes a scalable function below a PCI device.
func (t *Tree) Auxiliary(id, parent string, number int) (dir string) {
	dir = parent + "/" + id
	t.Write(dir+"/sfnum", strconv.Itoa(number))
	t.Link("bus/auxiliary/devices/"+id, dir)
	t.Link(dir+"/subsystem", "bus/auxiliary")
	return dir
}

// address adds to a PCI address's routing id.
func address(base string, add int) string {
	var domain, bus, slot, fn int
	if _, err := fmt.Sscanf(base, "%04x:%02x:%02x.%d", &domain, &bus, &slot, &fn); err != nil {
		panic(err)
	}
	id := bus<<8 + slot<<3 + fn + add
	return fmt.Sprintf("%04x:%02x:%02x.%d", domain, id>>8, id>>3&0x1f, id&7)
}
