package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/pkg/alloc"
)

// restAnnotation is on the Lease: what rests is handed on with the leadership.
const restAnnotation = "portolan.io/resting"

// resting is what a deleted node had, and nobody gets yet.
type resting struct {
	Node    string         `json:"node"`
	ID      int            `json:"id,omitempty"`
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	Since   time.Time      `json:"since"`
}

// resting lists what has not rested long enough.
func (a *assigner) resting() []resting {
	a.rests = slices.DeleteFunc(a.rests, func(r resting) bool { return a.now().Sub(r.Since) >= alloc.DefaultRest })
	return a.rests
}

// resume puts to rest again what an earlier leader did: for the whole time, since
// its clock may differ. What a node has is not touched, so reserve goes before.
func (a *assigner) resume(list []resting) {
	for _, r := range list {
		if a.now().Sub(r.Since) >= alloc.DefaultRest {
			continue
		}
		owner := "resting/" + r.Node // no node's name has a slash
		if r.ID != 0 && a.ids.Reserve(owner, r.ID) == nil {
			a.ids.Release(owner)
		}
		if len(r.Subnets) > 0 && a.subnets.Reserve(owner, r.Subnets) == nil {
			a.subnets.Release(owner)
		}
		a.rests = append(a.rests, r)
	}
}

// recall reads what the Lease says rests. Without it, rests are cut short: no
// reason not to lead.
func (e election) recall(ctx context.Context) []resting {
	lease, err := e.client.CoordinationV1().Leases(e.cfg.Namespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		e.log.Warn("rests of an earlier leader not known", "err", err)
		return nil
	}
	text := lease.Annotations[restAnnotation]
	if text == "" {
		return nil
	}
	var list []resting
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		e.log.Warn("rests of an earlier leader not readable", "annotation", restAnnotation, "err", err)
		return nil
	}
	return list
}

// keep writes what rests to the Lease. The election's own next update then finds
// another version, and reads before it writes.
func (e election) keep(ctx context.Context, list []resting) error {
	text, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode rests: %w", err)
	}
	body, err := json.Marshal(leasePatch{leaseMeta{map[string]string{restAnnotation: string(text)}}})
	if err != nil {
		return fmt.Errorf("encode rests: %w", err)
	}
	_, err = e.client.CoordinationV1().Leases(e.cfg.Namespace).Patch(ctx, leaseName, types.MergePatchType, body, metav1.PatchOptions{})
	return err
}

// leasePatch is a JSON merge patch of the Lease's annotations.
type leasePatch struct {
	Metadata leaseMeta `json:"metadata"`
}

type leaseMeta struct {
	Annotations map[string]string `json:"annotations"`
}
