package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// Daemon is one of the programs that a node's network is made of.
type Daemon struct {
	Name       string
	Program    string
	Argument   string // that its command line contains; "": any
	Everywhere bool   // runs on every node
}

// Daemons lists them: ours, OVN's, and OVS's.
func Daemons() []Daemon {
	return []Daemon{
		{Name: "portolan-node", Program: "portolan-node", Argument: "--node-name=", Everywhere: true},
		{Name: "portolan-manager", Program: "portolan-manager"},
		{Name: "NB ovsdb-server", Program: "ovsdb-server", Argument: "ovnnb_db.db", Everywhere: true},
		{Name: "SB ovsdb-server", Program: "ovsdb-server", Argument: "ovnsb_db.db", Everywhere: true},
		{Name: "ovn-northd", Program: "ovn-northd", Everywhere: true},
		{Name: "ovn-controller", Program: "ovn-controller", Everywhere: true},
		{Name: "OVS ovsdb-server", Program: "ovsdb-server", Argument: "conf.db", Everywhere: true},
		{Name: "ovs-vswitchd", Program: "ovs-vswitchd", Everywhere: true},
	}
}

// DaemonNamed finds one; it panics on a name that nothing has.
func DaemonNamed(name string) Daemon {
	for _, d := range Daemons() {
		if d.Name == name {
			return d
		}
	}
	panic("faults: no daemon is called " + name)
}

// Is reports whether a process is the daemon.
func (d Daemon) Is(p node.Process) bool {
	return p.Program() == d.Program && (d.Argument == "" || slices.ContainsFunc(p.Argv[1:], func(a string) bool { return strings.Contains(a, d.Argument) }))
}

func (d Daemon) in(list []node.Process) bool { return slices.ContainsFunc(list, d.Is) }

// find lists a daemon's processes on some nodes.
func (d Daemon) find(nodes []string) ([]node.Process, error) {
	var out []node.Process
	for _, n := range nodes {
		list, err := node.Processes(n)
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(list, func(p node.Process) bool { return !d.Is(p) })...)
	}
	return out, nil
}

// where is where a daemon is looked for: the manager may be on any node.
func (r *Rig) where(d Daemon) []string {
	if d.Everywhere {
		return []string{r.Node}
	}
	return r.All
}

// Kill sends SIGKILL to daemons, all at once, and waits until they are gone.
func (r *Rig) Kill(ctx context.Context, list ...Daemon) error {
	var victims []node.Process
	for _, d := range list {
		found, err := d.find(r.where(d))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("%s does not run on %v", d.Name, r.where(d))
		}
		victims = append(victims, found...)
	}
	for _, p := range victims {
		if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", p, err)
		}
	}
	return until(ctx, 5*time.Second, func() error {
		for _, p := range victims {
			if syscall.Kill(p.PID, 0) == nil {
				return fmt.Errorf("%s is still there", p)
			}
		}
		return nil
	})
}

// until asks again until ok or time is up.
func until(ctx context.Context, patience time.Duration, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("not within %v", patience))
		case <-tick.C:
		}
	}
}
