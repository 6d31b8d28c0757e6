package main

import (
	"log/slog"
	"path/filepath"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/delegate"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// connectNetworks makes what knows the networks beside the default one. Without an API
// server the node holds its blocks by itself.
func (a *agent) connectNetworks() (err error) {
	spec := a.facts.spec.Spec
	cfg := networks.Config{
		Node: a.cfg.Node, MTU: a.facts.plan.MTU, Isolated: spec.NamespaceIsolation, Shared: spec.SharedNamespaces, Local: a.cfg.IntentDir != "",
		Alive: a.bound, File: func(name string) string { return delegate.ConfigNamed(a.cfg.CNIConfDir, name) }, Log: slog.Default(),
	}
	if !cfg.Local {
		cfg.Blocks, err = a.cfg.Kube.ConnectBlocks()
	} else if a.blocks, err = networks.OpenLocalBlocks(filepath.Join(a.cfg.StateDir, "blocks.json")); err == nil {
		cfg.Blocks = a.blocks
	}
	if err == nil {
		a.networks = networks.New(cfg)
	}
	return err
}

// bound reports whether a pod is one of this node's.
func (a *agent) bound(pod, uid string) bool { return a.door.Pods().Has(pod, uid) }

// kindAttachment files what is wrong with a pod's attachments beside what is wrong
// with the pod as its object says.
const kindAttachment intent.Kind = "Attachment"

// tellPod reports what keeps a pod from its networks: the manager makes an Event of it.
func (a *agent) tellPod(p cni.Pod, message string) {
	key := intent.Key{Kind: kindAttachment, Name: p.String()}
	if message == "" {
		a.health.problems(key, nil)
		return
	}
	a.health.problems(key, []rows.Problem{{
		Object: intent.Key{Kind: intent.KindPod, Name: p.String()}.String(), Field: "metadata.annotations[k8s.v1.cni.cncf.io/networks]",
		Severity: rows.Error, Message: message,
	}})
}

// kindFallback files that an interface has no device of hardware, each by itself.
const kindFallback intent.Kind = "Fallback"

// tellFallen reports that a pod's interface has no device of hardware though its definition
// prefers one: the manager makes an Event of it, and the pod's view shows it.
func (a *agent) tellFallen(p cni.Pod, key, reason string) {
	of := intent.Key{Kind: kindFallback, Name: p.String() + "/" + key}
	if reason == "" {
		a.health.problems(of, nil)
		return
	}
	a.health.problems(of, []rows.Problem{{
		Object: intent.Key{Kind: intent.KindPod, Name: p.String()}.String(), Field: "metadata.annotations[k8s.v1.cni.cncf.io/networks]",
		Severity: rows.Warning, Message: "interface by definition " + key + ": " + reason,
	}})
}

// fallback is what tellFallen was told last of an interface; "": nothing.
func (a *agent) fallback(pod, key string) string {
	a.health.mu.Lock()
	defer a.health.mu.Unlock()
	for _, p := range a.health.found[intent.Key{Kind: kindFallback, Name: pod + "/" + key}] {
		return p.Message
	}
	return ""
}
