package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Node counts what the agent of a node does beside compiling.
type Node struct {
	stages  *prometheus.HistogramVec
	patches *prometheus.CounterVec
	repairs *prometheus.CounterVec
}

// NewNode adds the figures of an agent.
func NewNode(s *Set) *Node {
	return &Node{
		stages:  s.milliseconds("cni_stage_milliseconds", "Time that each stage of a CNI call took.", "command", "stage"),
		patches: s.counterVec("api_patches_total", "Attempts to write annotations, by kind of object and result: written, gone or failed.", "kind", "result"),
		repairs: s.counterVec("repairs_total", "What was not as it should be at a comparison with sandboxes, OVS ports, addresses and annotations, or at a start, and was set right, by what it was: sandbox, port, device, record, interface, pod, address, annotation.", "what"),
	}
}

// Stage takes the time of one stage of a CNI call.
func (n *Node) Stage(command, stage string, d time.Duration) {
	n.stages.WithLabelValues(command, stage).Observe(inMilliseconds(d))
}

// Patch takes the result of one request that writes annotations.
func (n *Node) Patch(kind, result string) { n.patches.WithLabelValues(kind, result).Inc() }

// Repair counts something that was set right.
func (n *Node) Repair(what string) { n.repairs.WithLabelValues(what).Inc() }
