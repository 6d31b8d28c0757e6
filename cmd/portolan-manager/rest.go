package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// These are on the Lease: what is handed on with the leadership.
const (
	recordAnnotation    = "portolan.io/allocations"
	networkIDAnnotation = "portolan.io/network-ids" // one more than the highest that was ever given
)

// recall reads what an earlier leader left. Without it, rests are cut short: no
// reason not to lead.
func (e election) recall(ctx context.Context) assign.Record {
	var left assign.Record
	lease, err := e.client.CoordinationV1().Leases(e.cfg.Namespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		e.log.Warn("what an earlier leader left is not known", "err", err)
		return left
	}
	text := lease.Annotations[recordAnnotation]
	if text == "" {
		return left
	}
	if err := json.Unmarshal([]byte(text), &left); err != nil {
		e.log.Warn("what an earlier leader left is not readable", "annotation", recordAnnotation, "err", err)
		return assign.Record{}
	}
	return left
}

// runs reads what agents say that they run with. A node is given something else than
// its pods live with if this is not known, so a failure of the moment is waited out.
func (e election) runs(ctx context.Context) map[string]kube.Allocation {
	for end := time.Now().Add(patience); ; {
		asking, cancel := context.WithTimeout(ctx, renewDeadline)
		out, err := kube.ReadAllocations(asking, e.networks)
		cancel()
		if err == nil {
			return out
		}
		denied := kube.Denied(err) || time.Now().After(end)
		e.log.Warn("what agents run with is not known", "err", err, "goOn", denied)
		if denied {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPeriod):
		}
	}
}

// keep writes a record to the Lease, if this process still holds it and nobody has
// changed it since that was seen: a leader that was stopped and goes on after
// another has begun fails here, before it gives a node anything. The election's own
// next update then finds another version, and reads before it writes.
func (e election) keep(ctx context.Context, r assign.Record) error {
	return e.leave(ctx, recordAnnotation, r)
}

// recallNetworkIDs reads how far ids of networks were ever given; 0: not known.
func (e election) recallNetworkIDs(ctx context.Context) uint64 {
	lease, err := e.client.CoordinationV1().Leases(e.cfg.Namespace).Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		e.log.Warn("how far ids of networks were given is not known", "err", err)
		return 0
	}
	text := lease.Annotations[networkIDAnnotation]
	high, err := strconv.ParseUint(text, 10, 32)
	if err != nil && text != "" {
		e.log.Warn("what an earlier leader left is not readable", "annotation", networkIDAnnotation, "err", err)
	}
	return high
}

// keepNetworkIDs is keep, for the ids of networks.
func (e election) keepNetworkIDs(ctx context.Context, high uint64) error {
	return e.leave(ctx, networkIDAnnotation, high)
}

func (e election) leave(ctx context.Context, annotation string, value any) error {
	leases := e.client.CoordinationV1().Leases(e.cfg.Namespace)
	lease, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if holder := lease.Spec.HolderIdentity; holder == nil || *holder != e.cfg.Identity {
		return fmt.Errorf("the Lease %s/%s is not held by %s any more", e.cfg.Namespace, leaseName, e.cfg.Identity)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode what is left to the next leader: %w", err)
	}
	body, err := json.Marshal(leasePatch{leaseMeta{lease.ResourceVersion, map[string]string{annotation: string(text)}}})
	if err != nil {
		return fmt.Errorf("encode what is left to the next leader: %w", err)
	}
	_, err = leases.Patch(ctx, leaseName, types.MergePatchType, body, metav1.PatchOptions{})
	return err
}

// leasePatch is a JSON merge patch of one version of the Lease.
type leasePatch struct {
	Metadata leaseMeta `json:"metadata"`
}

type leaseMeta struct {
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Annotations     map[string]string `json:"annotations"`
}
