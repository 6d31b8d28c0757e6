package host

import (
	"context"
	"fmt"

	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/ovsdb/vswitch"
)

// RestoreWait is the key of Open_vSwitch's other_config by which vswitchd, if it
// starts while it is true, moves no packet until it is taken away: one that has no
// flows yet would hand pods' answers to the host's stack, which resets their
// connections. On the kernel datapath established flows go on meanwhile
// (ovs-vswitchd.conf.db(5)).
const RestoreWait = "flow-restore-wait"

// HoldPackets sets RestoreWait where there are bridges of ours whose flows somebody
// will load again.
func (o *OVS) HoldPackets(ctx context.Context) error {
	var ours []vswitch.Bridge
	err := o.db.WhereCache(func(b *vswitch.Bridge) bool { return b.ExternalIDs[ownerTag] != "" }).List(ctx, &ours)
	if err != nil || len(ours) == 0 || o.Holding(ctx) {
		return err
	}
	return o.setRestoreWait(ctx, ovsdb.MutateOperationInsert, map[string]string{RestoreWait: "true"})
}

// ReleasePackets takes RestoreWait away.
func (o *OVS) ReleasePackets(ctx context.Context) error {
	if !o.Holding(ctx) {
		return nil
	}
	return o.setRestoreWait(ctx, ovsdb.MutateOperationDelete, []string{RestoreWait})
}

// Holding reports whether RestoreWait is set, as far as the database's copy knows.
func (o *OVS) Holding(ctx context.Context) bool {
	var roots []vswitch.OpenvSwitch
	return o.db.List(ctx, &roots) == nil && len(roots) > 0 && roots[0].OtherConfig[RestoreWait] != ""
}

// ExternalID reads a key of Open_vSwitch's external_ids; "" when it is not there.
func (o *OVS) ExternalID(ctx context.Context, key string) string {
	var roots []vswitch.OpenvSwitch
	if o.db.List(ctx, &roots) != nil || len(roots) == 0 {
		return ""
	}
	return roots[0].ExternalIDs[key]
}

// OtherConfig reads a key of Open_vSwitch's other_config; "" when it is not there.
func (o *OVS) OtherConfig(ctx context.Context, key string) string {
	var roots []vswitch.OpenvSwitch
	if o.db.List(ctx, &roots) != nil || len(roots) == 0 {
		return ""
	}
	return roots[0].OtherConfig[key]
}

func (o *OVS) setRestoreWait(ctx context.Context, how ovsdb.Mutator, value any) error {
	ctx, cancel := context.WithTimeout(ctx, ovsTimeout)
	defer cancel()
	var roots []vswitch.OpenvSwitch
	if err := o.db.List(ctx, &roots); err != nil || len(roots) == 0 {
		return err
	}
	root := &roots[0]
	ops, err := o.db.Where(root).Mutate(root, model.Mutation{Field: &root.OtherConfig, Mutator: how, Value: value})
	if err != nil {
		return err
	}
	results, err := o.db.Transact(ctx, ops...)
	if err == nil {
		_, err = ovsdb.CheckOperationResults(results, ops)
	}
	if err != nil {
		return fmt.Errorf("OVS database: other_config:%s: %w", RestoreWait, err)
	}
	return nil
}
