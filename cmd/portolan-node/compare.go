package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// compareEvery is how often the node looks whether what it knows is what there is.
const compareEvery = 15 * time.Second

// repairTold is how long a NodeNetwork tells of a repair: the manager makes an Event
// of it meanwhile.
const repairTold = 10 * time.Minute

// maxRepairs bounds what is told at once; the metric counts all.
const maxRepairs = 32

// compare compares sandboxes, OVS ports, addresses and annotations until ctx ends, at
// once and then again and again.
func (a *agent) compare(ctx context.Context, server *cni.Agent) {
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		if err := server.Compare(ctx); err != nil && ctx.Err() == nil {
			slog.Warn("not all could be compared or set right, trying again", "err", err)
		}
		for _, p := range a.door.Compare() {
			a.repaired(cni.Repair{What: cni.RepairedAnnotation, Pod: p, Message: "the annotation k8s.ovn.org/pod-networks did not say what the pod has: written again"})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// repaired counts something that was set right, and has it told of its pod, or of the
// node where nobody knows whose it was.
func (a *agent) repaired(r cni.Repair) {
	a.health.node.Repair(r.What)
	object := intent.Key{Kind: intent.KindNode, Name: a.cfg.Node}
	if r.Pod.Name != "" {
		object = intent.Key{Kind: intent.KindPod, Name: r.Pod.String()}
	}
	a.health.repaired(rows.Problem{Object: object.String(), Severity: rows.Repaired, Message: r.Message})
}
