package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// Attachment is what a device is to be for its owner.
type Attachment struct {
	Device string `json:"device"` // its id
	Owner  Owner  `json:"-"`
	// MAC of the function; nil: as Settings say, or as it is.
	MAC net.HardwareAddr `json:"mac,omitempty"`
	MTU int              `json:"mtu,omitempty"` // of both ends, in bytes; 0: as they are
	// Settings of the PF's; in legacy mode only, but for the MAC.
	Settings Settings `json:"settings,omitzero"`
	Encap    string   `json:"encap,omitempty"` // address of the tunnels of its NIC; "": the node's
	Alias    string   `json:"alias,omitempty"` // of the representor, shown by ip link; "": none
}

// Given is what an owner has of a device.
type Given struct {
	Device Device // as it was found
	IfName string // in the sandbox; "": its driver is a program, and there is none
	MAC    string
	MTU    int // 0: not known
	// Notes say what is not as one might expect, and does not keep the device from its
	// work.
	Notes []string
}

// Plugged is what the switch records of a representor's port.
type Plugged struct {
	Owner     Owner
	MAC       string
	Netdev    string // the function's network device, as the host knows it; "": none
	Userspace bool
	Encap     string
}

// Switch is the software switch whose ports representors are. Its methods return when
// it is done, and may be repeated.
type Switch interface {
	// Plug makes a representor a port, and refuses one that is another owner's.
	Plug(ctx context.Context, representor string, p Plugged) error
	// Unplug takes the port of an owner away; nothing when there is none of that owner's.
	// settled, which may be called again, returns when the switch has let go of the
	// representor, or does not: it may be nil.
	Unplug(ctx context.Context, representor string, o Owner) (settled func(context.Context), err error)
	// WaitInstalled returns when packets of the port go their way.
	WaitInstalled(ctx context.Context, representor string) error
}

// KeeperConfig is what a Keeper needs. Dir, Inventory and Kernel are required.
type KeeperConfig struct {
	Dir       string // of records and locks, which is made
	Inventory *Inventory
	Kernel    Kernel
	Switch    Switch // nil: only devices without a representor can be given
	Soft      SoftOptions
	// Patience is how long a network device is waited for that is on its way back to the
	// node from a namespace that has ended; 0: 5 s.
	Patience time.Duration
	Log      *slog.Logger // nil: slog.Default
	AtStep   func(string) // called after each write of a record. Nil but in fault tests.
}

// Keeper gives devices to owners and takes them back.
type Keeper struct {
	config  KeeperConfig
	kernel  Kernel
	journal journal
	locks   *locks
	log     *slog.Logger
	boot    string
}

// NewKeeper makes a Keeper. Call Repair before anything else of it.
func NewKeeper(c KeeperConfig) (*Keeper, error) {
	for name, missing := range map[string]bool{"Dir": c.Dir == "", "Inventory": c.Inventory == nil, "Kernel": c.Kernel == nil} {
		if missing {
			return nil, fmt.Errorf("keeper of devices: %s is not set", name)
		}
	}
	if c.Patience == 0 {
		c.Patience = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("records of devices: %w", err)
	}
	boot, err := c.Kernel.Boot()
	if err != nil {
		return nil, fmt.Errorf("which boot of the machine this is: %w", err)
	}
	return &Keeper{config: c, kernel: c.Kernel, journal: journal{c.Dir, c.AtStep, &seen{}}, log: c.Log, boot: boot,
		locks: &locks{dir: c.Dir, turns: map[string]*turn{}}}, nil
}

// Records lists the devices that somebody has, or that are on their way.
func (k *Keeper) Records() ([]Record, error) { return k.journal.all() }

// Attach gives a device to an owner, whole: it returns when packets go their way, or
// when what had been done is undone. The sandbox's end is up and has no address. To
// attach what is attached is done at once.
func (k *Keeper) Attach(ctx context.Context, a Attachment) (*Given, error) {
	out, err := k.Take(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := k.connect(ctx, a, out); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		return nil, errors.Join(err, k.Release(undo, a.Device, a.Owner))
	}
	return out, nil
}

// rollbackTime is how long undoing may take after the call's own time is up.
const rollbackTime = 20 * time.Second

func (k *Keeper) connect(ctx context.Context, a Attachment, out *Given) error {
	if r := out.Device.Representor; r != "" {
		if k.config.Switch == nil {
			return &DeviceError{a.Device, "representor", "it is " + r + ", and there is no switch to put it into", "give a device of a NIC in legacy mode", nil}
		}
		p := Plugged{Owner: a.Owner, MAC: out.MAC, Netdev: out.Device.Netdev, Userspace: out.Device.Userspace(), Encap: a.Encap}
		if err := k.config.Switch.Plug(ctx, r, p); err != nil {
			return err
		}
		if err := k.Raise(ctx, a.Device, a.Owner); err != nil {
			return err
		}
	}
	if out.IfName != "" {
		if err := k.raiseFunction(ctx, a.Device, a.Owner); err != nil {
			return err
		}
	}
	if r := out.Device.Representor; r != "" {
		if err := k.config.Switch.WaitInstalled(ctx, r); err != nil {
			return err
		}
	}
	return k.Commit(ctx, a.Device, a.Owner)
}

// lock takes a device's lock, by whatever spelling of its id.
func (k *Keeper) lock(ctx context.Context, id string) (canonical string, unlock func(), err error) {
	if canonical, err = CanonicalID(id); err != nil {
		return "", nil, err
	}
	unlock, err = k.locks.lock(ctx, canonical)
	return canonical, unlock, err
}

// own works on the record of an owner's device.
func (k *Keeper) own(ctx context.Context, id string, o Owner, f func(*Record) error) error {
	id, unlock, err := k.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := k.journal.read(id)
	if err != nil {
		return err
	}
	if r == nil || !r.Owner.is(o) {
		return &DeviceError{id, k.journal.path(id), "it is not " + o.String() + "'s any more", "try again: another call has taken it away meanwhile", nil}
	}
	return f(r)
}

// Raise brings an owner's representor up, which is to be a port of the switch by then.
// It may be repeated: a switch that opens the port may have taken it down.
func (k *Keeper) Raise(ctx context.Context, id string, o Owner) error {
	return k.own(ctx, id, o, k.raise)
}

func (k *Keeper) raise(r *Record) error {
	if r.Representor == "" {
		return nil
	}
	host := k.kernel.Host()
	l, err := k.kernel.Link(host, r.Representor)
	if err == nil && !l.Up {
		err = k.kernel.SetUp(host, l.Index, true)
	}
	if err != nil {
		return &DeviceError{r.Device, "representor " + r.Representor, "bringing it up: " + err.Error(), "look at ip link show " + r.Representor, err}
	}
	return nil
}

// raiseFunction brings the sandbox's end up.
func (k *Keeper) raiseFunction(ctx context.Context, id string, o Owner) error {
	return k.own(ctx, id, o, func(r *Record) error {
		ns, l, err := k.inSandbox(r)
		if err != nil {
			return err
		}
		if ns == nil {
			return k.notThere(r)
		}
		defer ns.Close()
		return k.failed(r.Device, "bringing "+l.Name+" up in the sandbox", k.kernel.SetUp(ns, l.Index, true))
	})
}

func (k *Keeper) notThere(r *Record) error {
	return &DeviceError{r.Device, "interface " + r.Owner.IfName, "it is not in the sandbox " + r.Owner.Netns, "look whether the NIC was reset or the sandbox was removed meanwhile", nil}
}

// failed words a change that the kernel refused; nil for nil.
func (k *Keeper) failed(id, doing string, err error) error {
	if err == nil {
		return nil
	}
	return &DeviceError{id, doing, err.Error(), "look at the kernel's log for what the driver says", err}
}

// Commit notes that a device is wholly its owner's, and brings the representor up once
// more where the switch has taken it down.
func (k *Keeper) Commit(ctx context.Context, id string, o Owner) error {
	return k.own(ctx, id, o, func(r *Record) error {
		if err := k.raise(r); err != nil {
			return err
		}
		if r.Phase == Attached {
			return nil
		}
		r.Phase = Attached
		return k.journal.write(r)
	})
}

// Release takes a device back from an owner, and leaves everything as it was before. A
// device that is not, or no longer, that owner's is not touched, which is a success.
// After an error the record is kept: to release again goes on.
func (k *Keeper) Release(ctx context.Context, id string, o Owner) error {
	id, unlock, err := k.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := k.journal.read(id)
	if err != nil || r == nil || !r.Owner.is(o) {
		return err
	}
	return k.restore(ctx, r)
}

// ReleaseSandbox takes back what a sandbox has: one interface, or for "" all.
func (k *Keeper) ReleaseSandbox(ctx context.Context, sandbox, ifName string) error {
	records, err := k.Records()
	errs := []error{err}
	for _, r := range records {
		if r.Owner.Sandbox == sandbox && (ifName == "" || r.Owner.IfName == ifName) {
			errs = append(errs, k.Release(ctx, r.Device, r.Owner))
		}
	}
	return errors.Join(errs...)
}

// Lives reports whether the namespace that an owner's device was given to is there.
func (k *Keeper) Lives(o Owner) bool {
	ns, err := k.kernel.Open(o.Netns)
	if err != nil {
		// What cannot be looked at may live.
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer ns.Close()
	return o.NetnsID == "" || ns.ID() == o.NetnsID
}

// Check reports what a device lacks that an owner was given.
func (k *Keeper) Check(ctx context.Context, id string, o Owner) error {
	return k.own(ctx, id, o, func(r *Record) error {
		if r.Phase != Attached {
			return &DeviceError{id, k.journal.path(id), "the device is " + string(r.Phase), "attach it again", nil}
		}
		return k.check(r)
	})
}

func (k *Keeper) check(r *Record) error {
	var missing []error
	if !r.Userspace {
		ns, l, err := k.inSandbox(r)
		switch {
		case err != nil:
			return err
		case ns == nil:
			return k.notThere(r)
		}
		defer ns.Close()
		if l.Name != r.Owner.IfName {
			missing = append(missing, &DeviceError{r.Device, "interface " + r.Owner.IfName, "it is named " + l.Name + " in the sandbox", "look what renames it there", nil})
		}
		if mac := r.mac(); mac != "" && !strings.EqualFold(mac, l.MAC) {
			missing = append(missing, &DeviceError{r.Device, "interface " + r.Owner.IfName, "its MAC is " + l.MAC + ", and was given as " + mac, "look what sets it in the sandbox: nothing reaches it there", nil})
		}
	}
	if r.Representor != "" {
		l, err := k.kernel.Link(k.kernel.Host(), r.Representor)
		if err != nil {
			missing = append(missing, k.failed(r.Device, "looking at representor "+r.Representor, err))
		} else if !l.Up {
			missing = append(missing, &DeviceError{r.Device, "representor " + r.Representor, "it is down", "look what takes it down: portolan-node brings it up at its next comparison", nil})
		}
	}
	return errors.Join(missing...)
}

// mac that the function is to have; "": its own.
func (r *Record) mac() string {
	if r.Wanted.MAC != nil {
		return r.Wanted.MAC.String()
	}
	if r.Wanted.Settings.MAC != "" {
		mac, _ := net.ParseMAC(r.Wanted.Settings.MAC)
		return mac.String()
	}
	return ""
}
