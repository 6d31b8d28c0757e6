package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/soup"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// watchedPod is what the ledger wants to know of a pod.
type watchedPod struct {
	Metadata struct {
		Name, UID   string
		Annotations map[string]string
	}
	Spec struct{ HostNetwork bool }
}

// given lists the addresses that the pod's annotation says.
func (p watchedPod) given() []netip.Addr {
	var nets map[string]struct {
		Addrs []netip.Prefix `json:"ip_addresses"`
	}
	if p.Spec.HostNetwork || json.Unmarshal([]byte(p.Metadata.Annotations["k8s.ovn.org/pod-networks"]), &nets) != nil {
		return nil
	}
	var out []netip.Addr
	for _, a := range nets["default"].Addrs {
		out = append(out, a.Addr())
	}
	return out
}

// watch follows the suite's pods and enters each address that is given into the
// ledger, until stop is called. A watch that breaks off begins anew.
func (k *kitchen) watch() (stop func()) {
	ctx, cancel := context.WithCancel(k.t.Context())
	done, ledger := make(chan struct{}), k.ledger
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if out, err := k.kubectl("get", "pods", "-o", "json"); err == nil {
				var list struct{ Items []watchedPod }
				if json.Unmarshal([]byte(out), &list) == nil {
					var uids []string
					for _, p := range list.Items {
						uids = append(uids, p.Metadata.UID)
					}
					ledger.Except(uids)
				}
			}
			k.follow(ctx, ledger)
		}
	}()
	return func() { cancel(); <-done }
}

// entered reports whether the ledger knows every pod: else it has seen nothing wrong
// because it has not looked.
func (k *kitchen) entered(found map[string]pod) error {
	for name := range found {
		if !k.ledger.Has(name) {
			return fmt.Errorf("pod %s was not seen when it was given its address: the watch is broken", name)
		}
	}
	return nil
}

// follow reads one watch to its end.
func (k *kitchen) follow(ctx context.Context, ledger *soup.Ledger) {
	cmd := exec.CommandContext(ctx, "../../../bin/lab", "kubectl", "-n", namespace, "get", "pods", "-w", "-o", "json", "--output-watch-events")
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	defer func() { _ = cmd.Wait() }()
	for dec := json.NewDecoder(out); ; {
		var e struct {
			Type   string
			Object watchedPod
		}
		if err := dec.Decode(&e); err != nil {
			_, _ = io.Copy(io.Discard, out)
			return
		}
		addrs, meta := e.Object.given(), e.Object.Metadata
		switch {
		case e.Type == "DELETED":
			ledger.Gone(meta.UID)
		case len(addrs) > 0:
			ledger.Given(soup.Holder{UID: meta.UID, Name: meta.Name, Addrs: addrs}, func() ([]soup.Listing, int) { return k.listings(ctx) })
		}
	}
}

// listings is what every zone's databases list now, and of how many nodes one did
// not answer.
func (k *kitchen) listings(ctx context.Context) (out []soup.Listing, silent int) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, n := range k.nodes {
		ports, err := state.Ports(ctx, n)
		if err != nil {
			silent++
		}
		for _, p := range ports {
			out = append(out, soup.Listing{Zone: n, DB: p.DB, Port: p.Name, Owner: p.Pod, Addrs: p.Addrs})
		}
	}
	return out, silent
}
