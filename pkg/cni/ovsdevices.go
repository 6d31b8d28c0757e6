package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/ovsdb/vswitch"
)

// occupied reports whether a port is there already. A veth's has its name to itself; a
// representor's is the device's, so its port may be an earlier owner's, who has lost the
// device, and then goes; or of somebody who is none of ours, and then is refused.
func (p *OVSPorts) occupied(ctx context.Context, port Port) (bool, error) {
	row, err := p.row(ctx, port.Name)
	switch {
	case err != nil:
		return false, ignoreNotFound(err)
	case port.Device == "" || row.ExternalIDs[keySandbox] == port.Sandbox && row.ExternalIDs[keyOwner] == owner(port):
		return true, nil
	case strings.HasPrefix(row.ExternalIDs[keyOwner], ownerPrefix):
		return false, p.Remove(ctx, port.Name, "")
	}
	return false, fmt.Errorf("representor %s of device %s is a port of Open vSwitch already, of bridge %s, and none of Portolan's: take it out with ovs-vsctl del-port %s",
		port.Name, port.Device, p.bridgeOf(ctx, port.Name), port.Name)
}

// bridgeOf is the bridge of a port, for people.
func (p *OVSPorts) bridgeOf(ctx context.Context, name string) string {
	port := &ovsPort{Name: name}
	if err := p.client.Get(ctx, port); err != nil {
		return "(not known)"
	}
	op := ovsdb.Operation{Op: ovsdb.OperationSelect, Table: vswitch.BridgeTable, Columns: []string{"name"},
		Where: []ovsdb.Condition{ovsdb.NewCondition("ports", ovsdb.ConditionIncludes, ovsdb.OvsSet{GoSet: []any{ovsdb.UUID{GoUUID: port.UUID}}})}}
	results, err := p.client.Transact(ctx, op)
	if err != nil || len(results) == 0 || len(results[0].Rows) == 0 {
		return "(not known)"
	}
	return fmt.Sprint(results[0].Rows[0]["name"])
}

// vswitchdPatience bounds the wait for vswitchd. One that does not run has nothing open.
const vswitchdPatience = 2 * time.Second

// unplug removes a representor's port, if it is that sandbox's still when the database
// does it. settled returns once vswitchd has let go of the device: it may be made again
// under its name at once, or get a port again, and vswitchd would take that for no change.
func (p *OVSPorts) unplug(ctx context.Context, name, sandbox string, remove ovsdb.Operation) (settled func(context.Context), err error) {
	ids, err := ovsdb.NewOvsMap(map[string]string{keySandbox: sandbox})
	if err != nil {
		return nil, err
	}
	zero := 0
	root := []ovsdb.Condition{ovsdb.NewCondition("next_cfg", ovsdb.ConditionGreaterThanOrEqual, 0)} // the one row: the library leaves an empty list out
	ops := []ovsdb.Operation{
		remove,
		{Op: ovsdb.OperationMutate, Table: vswitch.OpenvSwitchTable, Where: root, Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("next_cfg", ovsdb.MutateOperationAdd, 1)}},
		{Op: ovsdb.OperationSelect, Table: vswitch.OpenvSwitchTable, Where: root, Columns: []string{"next_cfg"}},
	}
	if sandbox != "" {
		ops = append([]ovsdb.Operation{{Op: ovsdb.OperationWait, Table: vswitch.InterfaceTable, Timeout: &zero, Columns: []string{"name"}, Until: string(ovsdb.WaitConditionEqual),
			Where: []ovsdb.Condition{ovsdb.NewCondition("name", ovsdb.ConditionEqual, name), ovsdb.NewCondition("external_ids", ovsdb.ConditionIncludes, ids)},
			Rows:  []ovsdb.Row{{"name": name}}}}, ops...)
	}
	results, err := p.client.Transact(ctx, ops...)
	if err != nil {
		return nil, fmt.Errorf("OVS database: %w", err)
	}
	if err := checked(results, ops); err != nil {
		if row, gone := p.row(ctx, name); gone != nil || row.ExternalIDs[keySandbox] != sandbox {
			return nil, ignoreNotFound(gone) // it has become another's meanwhile
		}
		return nil, err
	}
	if rows := results[len(results)-1].Rows; len(rows) > 0 {
		return func(ctx context.Context) { p.waitRead(ctx, rows[0]["next_cfg"]) }, nil
	}
	return nil, nil
}

// waitRead waits until vswitchd has read what was written with a next_cfg.
func (p *OVSPorts) waitRead(ctx context.Context, next any) {
	want, ok := next.(float64)
	if !ok {
		return
	}
	bell := make(chan struct{}, 1)
	p.listen("", bell)
	defer p.leave("", bell)
	ctx, cancel := context.WithTimeout(ctx, vswitchdPatience)
	defer cancel()
	for {
		var root []ovsRoot
		if err := p.client.List(ctx, &root); err != nil || len(root) == 0 || float64(root[0].CurCfg) >= want {
			return
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return
		}
	}
}

// ignoreNotFound is nil for a row that is not there.
func ignoreNotFound(err error) error {
	if err == nil || errors.Is(err, client.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("OVS database: %w", err)
}
