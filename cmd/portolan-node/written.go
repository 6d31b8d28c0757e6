package main

import (
	"context"
	"errors"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// writtenPatience is how long after a port is installed its row may take to be known
// as written: OVN has read it, so its reply is on the way.
const writtenPatience = 5 * time.Second

// written reports why what is installed under a pod's port name is not the pod's own:
// OVN installs a port of that name on whatever switch it is, and a row of somebody
// else's may have it. A database that is away says nothing against a port.
func (a *agent) written(ctx context.Context, p cni.Pod) error {
	if conn := a.conns[rows.NB]; conn == nil || !conn.State().Up {
		return nil
	}
	group := "pod/" + p.String()
	bounded, cancel := context.WithTimeout(ctx, writtenPatience)
	defer cancel()
	if a.driver.Wait(bounded, group, ovsdb.Committed) == nil {
		return nil
	}
	report, err := a.driver.Report(ctx)
	if err != nil {
		return err
	}
	for _, s := range report.Statuses {
		if refusal, ok := s.Refusal(); ok && s.Group == group {
			return errors.New(refusal)
		}
	}
	return nil
}
