package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Recover takes up what an earlier process left. pods are those now bound to this
// node and not completed, after the informer has synced; known are the
// allocations that their annotations record, which count where OVS has no record
// (decision 17). It must succeed before anything else is served.
//
// A record is kept when its veth is there and it belongs to a sandbox or to a pod
// that is still to come; other records, and veths and chains without a record,
// are removed. An address is kept while the pod is, or while its sandbox is.
func (a *Agent) Recover(ctx context.Context, pods []Pod, known []Attachment) error {
	ports, err := a.config.Ports.List(ctx)
	if err != nil {
		return err
	}
	devices, err := a.config.Links.List()
	if err != nil {
		return err
	}
	live := make(map[string]Pod, len(pods))
	for _, p := range pods {
		live[p.UID] = p
	}
	// Should a pod have two records, the one in use is kept.
	slices.SortStableFunc(ports, func(a, b Port) int { return cmp.Compare(b.Sandbox, a.Sandbox) })
	var errs []error
	var kept []string
	for _, p := range ports {
		keep, err := a.restore(ctx, p, live, slices.Contains(devices, p.Name))
		if keep {
			kept = append(kept, p.Name)
		}
		errs = append(errs, err)
	}
	for _, k := range known {
		if _, ok := live[k.Pod.UID]; ok {
			a.restoreKnown(k)
		}
	}
	for _, d := range devices {
		if !slices.Contains(kept, d) {
			errs = append(errs, a.config.Links.Delete(d))
		}
	}
	if a.config.Concealer != nil {
		errs = append(errs, a.config.Concealer.Sweep(ctx, kept))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("taking up the attachments of an earlier run: %w", err)
	}
	a.recovered.Store(true)
	a.log.Info("attachments recovered", "ports", len(kept), "removed", len(ports)-len(kept))
	return nil
}

// restore takes up one record, or removes it.
func (a *Agent) restore(ctx context.Context, p Port, live map[string]Pod, device bool) (keep bool, err error) {
	pod, alive := live[p.Pod.UID]
	keep = device && p.Pod.UID != "" && (alive || p.Sandbox != "") && a.lookupPort(p.Pod.UID) == ""
	if !alive {
		pod = p.Pod
	}
	if keep || alive {
		err := a.config.Pool.Reserve(pod.UID, p.Addresses)
		if err != nil || len(p.Addresses) == 0 {
			// Its node's subnet has changed, or the record was tampered with. The pod
			// keeps running as it is; a new sandbox gets a new address.
			a.log.Warn("a port's recorded address cannot be kept", "pod", pod.String(), "port", p.Name, "err", err)
			keep = keep && p.Sandbox != ""
		}
		if keep || err == nil && len(p.Addresses) > 0 {
			e := a.entryOf(pod)
			e.addresses, e.gone = p.Addresses, !alive
			e.generation = max(e.generation, p.Generation+1)
			if keep {
				a.adopt(e, p)
			}
			a.publish(e)
		}
	}
	if keep {
		return true, nil
	}
	// The veth first: the record must not be lost before what it describes.
	if err := a.config.Links.Delete(p.Name); err != nil {
		return false, err
	}
	return false, a.config.Ports.Remove(ctx, p.Name)
}

func (a *Agent) lookupPort(uid string) string {
	if e := a.lookup(uid); e != nil {
		return e.port.Name
	}
	return ""
}

// adopt makes a recorded port the entry's.
func (a *Agent) adopt(e *entry, p Port) {
	e.port = p
	e.port.Pod, e.port.Sandbox = e.pod, ""
	a.setOwner(e, p.Sandbox)
}

// publish says once what a pod that is not gone has been given.
func (a *Agent) publish(e *entry) {
	if e.gone || e.published {
		return
	}
	a.config.Publisher.Attached(a.attachment(e))
	e.published = true
}

// restoreKnown takes up an allocation that only the pod's annotation records.
func (a *Agent) restoreKnown(k Attachment) {
	if e := a.lookup(k.Pod.UID); e != nil && e.addresses != nil {
		return
	}
	if err := a.config.Pool.Reserve(k.Pod.UID, k.Addresses); err != nil {
		a.log.Warn("an annotated address cannot be kept", "pod", k.Pod.String(), "err", err)
		return
	}
	e := a.entryOf(k.Pod)
	e.addresses, e.published = a.config.Pool.Lookup(k.Pod.UID), true
	a.config.Publisher.Attached(a.attachment(e))
}
