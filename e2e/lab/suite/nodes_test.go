package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
)

// TestFaultNode takes a node out of the cluster's list while its pods run, and lets
// its kubelet register it again under its name: once with the manager at work, once
// with the manager killed before the node comes. The node must have its id and subnet again, every node must be what it was, and
// packets of other nodes must not be lost. The way to the node itself is gone
// meanwhile, as every zone is told to forget it.
func TestFaultNode(t *testing.T) {
	r := rig(t)
	r.Node, r.Others = other, []string{victim}
	r.Paths = r.Paths[:2] // within the other node, and from there outside
	r.Port = 0
	for name, meanwhile := range map[string]func() error{
		"node deleted and registered again":                         func() error { return nil },
		"node deleted and registered again, manager killed as well": func() error { return killManager(t) },
	} {
		f := faults.Fault{Name: name + " (other nodes' packets)", Patience: 2 * time.Minute, Do: func(ctx context.Context, _ *faults.Rig) error {
			return registerAgain(t, other, meanwhile)
		}}
		t.Run(name, func(t *testing.T) { do(t, r, f) })
	}
}

// registerAgain deletes a Node, does something, and starts its kubelet again, which
// registers it. It returns when the node has its id and subnets again, and is ready.
func registerAgain(t *testing.T, host string, meanwhile func() error) error {
	before := given(t, host)
	kubectl(t, "delete", "node", host, "--wait=true", "--timeout=30s")
	if err := meanwhile(); err != nil {
		return err
	}
	if err := signal(host, "kubelet", syscall.SIGKILL); err != nil {
		return err
	}
	err := inTime(60*time.Second, func() error {
		if now := given(t, host); now != before {
			return errors.New("the node has " + now + ", had " + before)
		}
		return nil
	})
	if err != nil {
		return err
	}
	kubectl(t, "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
	return nil
}

// given is the id and the subnets that a node was given; "" for none.
func given(t *testing.T, host string) string {
	out, err := command(t, "kubectl", "get", "node", host, "--ignore-not-found", "-o",
		`jsonpath={.metadata.annotations.k8s\.ovn\.org/node-id} {.metadata.annotations.k8s\.ovn\.org/node-subnets}`)
	if err != nil {
		t.Log(out)
	}
	return strings.TrimSpace(out)
}

// killManager kills the process of the manager that leads; the kubelet starts it again.
func killManager(t *testing.T) error {
	host, err := leads(t)
	if err != nil {
		return err
	}
	if host == other {
		t.Log("the manager that leads runs on the node that is deleted")
	}
	return signal(host, "portolan-manager", syscall.SIGKILL)
}

// leads is the node of the manager that leads: one that has said so within the
// time that a leader may be silent.
func leads(t *testing.T) (string, error) {
	text, err := command(t, "kubectl", "-n", "portolan", "get", "lease", "portolan-manager", "-o", "jsonpath={.spec.holderIdentity} {.spec.renewTime}")
	if err != nil {
		return "", errors.New(text)
	}
	name, at, _ := strings.Cut(strings.TrimSpace(text), " ")
	renewed, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return "", fmt.Errorf("no manager leads: %w", err)
	}
	if time.Since(renewed) > 5*time.Second {
		return "", fmt.Errorf("no manager leads: %q did at %q", name, at)
	}
	host, err := command(t, "kubectl", "-n", "portolan", "get", "pod", name, "-o", "jsonpath={.spec.nodeName}")
	if err != nil {
		return "", errors.New(host)
	}
	return strings.TrimSpace(host), nil
}
