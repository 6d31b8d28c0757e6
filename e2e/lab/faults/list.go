package faults

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// The paths of a rig, by these names in its table.
const (
	SameNode  = "same node"
	OtherNode = "other node"
	Outside   = "outside"
)

// Killed is a daemon killed by SIGKILL. Two of them carry packets on the userspace
// datapath: vswitchd, and the database without which vswitchd does not run it (its
// main loop returns before the ports when it has lost its lock, and tries to connect
// again after a second).
func Killed(name string) Fault {
	f := Fault{Name: "kill -9 " + name, Do: func(ctx context.Context, r *Rig) error {
		return r.Kill(ctx, DaemonNamed(name))
	}}
	if name == "ovs-vswitchd" || name == "OVS ovsdb-server" {
		f.Bounded, f.Most = true, 5*time.Second
	}
	return f
}

// All kills every daemon of a node at once, but for vswitchd.
func All() Fault {
	return Fault{Name: "kill -9 all but ovs-vswitchd at once", Bounded: true, Patience: 2 * time.Minute, Do: func(ctx context.Context, r *Rig) error {
		return r.Kill(ctx, slices.DeleteFunc(Daemons(), func(d Daemon) bool { return d.Name == "ovs-vswitchd" })...)
	}}
}

// AllWithVswitchd kills every daemon of a node at once.
func AllWithVswitchd() Fault {
	return Fault{Name: "kill -9 all at once, ovs-vswitchd too", Bounded: true, Patience: 2 * time.Minute, Do: func(ctx context.Context, r *Rig) error {
		return r.Kill(ctx, Daemons()...)
	}}
}

// files are the databases of OVN on a node.
var files = map[string]string{
	"NB": "var/lib/portolan/ovn/ovnnb_db.db",
	"SB": "var/lib/portolan/ovn/ovnsb_db.db",
}

func databaseFile(name, db string) (string, error) {
	pid, err := node.InitPID(name)
	return filepath.Join(fmt.Sprintf("/proc/%d/root", pid), files[db]), err
}

// Wiped kills a database's server and removes its file before it is started again.
func Wiped(db string) Fault {
	return Fault{Name: db + " wiped", Bounded: true, Patience: 2 * time.Minute, Do: func(ctx context.Context, r *Rig) error {
		file, err := databaseFile(r.Node, db)
		if err != nil {
			return err
		}
		// Removed first: the server writes on into a file without a name, and the next
		// one finds none, however fast the kubelet is.
		if err := os.Remove(file); err != nil {
			return err
		}
		return r.Kill(ctx, DaemonNamed(db+" ovsdb-server"))
	}}
}

// Copy keeps a database's file as it is now, to be restored later.
func Copy(name, db, to string) error {
	file, err := databaseFile(name, db)
	if err != nil {
		return err
	}
	return copyFile(file, to)
}

// Restored kills a database's server and puts an old copy in the place of its file.
func Restored(db, from string) Fault {
	return Fault{Name: db + " restored from an old copy", Bounded: true, Patience: 2 * time.Minute, Do: func(ctx context.Context, r *Rig) error {
		file, err := databaseFile(r.Node, db)
		if err != nil {
			return err
		}
		if err := copyFile(from, file+".old"); err != nil {
			return err
		}
		if err := os.Rename(file+".old", file); err != nil {
			return err
		}
		return r.Kill(ctx, DaemonNamed(db+" ovsdb-server"))
	}}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
