package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// action is what up does about what it finds.
type action int

const (
	start action = iota // clear away what is there, start anew
	leave               // it is up as asked for
	boot                // it is up, but for nodes that crashed
)

// found looks at what of a lab there is, and decides.
func (l *Lab) found(want plan.Options) (record, action, error) {
	r, err := l.read()
	if errors.Is(err, fs.ErrNotExist) {
		return r, start, nil
	}
	if err != nil || !r.Up {
		l.say("an earlier run was interrupted; clearing it away")
		return r, start, nil
	}
	todo, err := decide(r, want, crashed(r))
	return r, todo, err
}

// crashed lists the nodes of a lab that do not run.
func crashed(r record) []plan.Node {
	var out []plan.Node
	for _, n := range plan.Of(r.Options).Machines {
		if _, err := node.InitPID(n.Name); err != nil {
			out = append(out, n)
		}
	}
	return out
}

// decide is up's policy for a lab that was once up. After a reboot of this
// machine all nodes are down, and their namespaces with them: a new start.
func decide(r record, want plan.Options, down []plan.Node) (action, error) {
	switch {
	case len(down) == r.Options.Nodes:
		return start, nil
	case r.Options != want:
		return start, fmt.Errorf("a lab is up with other options (%+v, asked for %+v): run `lab down` first", r.Options, want)
	case len(down) > 0:
		return boot, nil
	}
	return leave, nil
}

// bootMissing boots the nodes that crashed.
func (l *Lab) bootMissing(ctx context.Context, r record) error {
	p := plan.Of(r.Options)
	missing := crashed(r)
	for _, n := range missing {
		if err := l.startNode(ctx, r, p, n, n.Name); err != nil {
			return err
		}
		l.say("node %s was down; booted", n.Name)
	}
	for _, n := range missing {
		if err := l.waitKubelet(ctx, n.Name); err != nil {
			return err
		}
	}
	if p.CNI == plan.NoCNI {
		return nil
	}
	return l.waitNodesReady(ctx)
}
