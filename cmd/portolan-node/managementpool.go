package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/host"
)

// managementPools is *devices.Devices.
type managementPools interface {
	Settled() bool
	Candidates(resource string) []devices.Candidate
	Holders(context.Context) func(device string) string
	Leaving(device string) bool
	Look()
}

// ofPools is the device of the plan's resource that is to be the port: what is the port
// already, or was before a restart, as long as a pool offers it; else the first that
// nobody has. A device is picked first, and looked at again once the kubelet knows that
// no pod is to have it: of two that want one, a pod then has it, or the node.
func (m *management) ofPools(ctx context.Context, had host.ManagementDevice) (d host.ManagementDevice, soon bool, err error) {
	list := m.pools.Candidates(m.plan.Resource)
	held := m.kernel.ManagementHeld(had)
	for n, c := range list {
		if c.ID != had.Device || c.Leaving {
			continue
		}
		if d, err := m.find(c.ID, had); held && err == nil {
			return d, false, nil
		}
		copy(list[1:n+1], list[:n])
		list[0] = c
	}
	holder := m.pools.Holders(ctx)
	var against []string
	for _, c := range list {
		d, why := m.fit(c, had, holder)
		switch {
		case why != "":
			against = append(against, c.ID+": "+why)
		case !c.Kept:
			m.pick(c.ID)
			return host.ManagementDevice{}, true, nil
		default:
			return d, false, nil
		}
	}
	return host.ManagementDevice{}, false, noneFree(m.plan.Resource, against)
}

// fit is a device of a pool as the port, or why it cannot be.
func (m *management) fit(c devices.Candidate, had host.ManagementDevice, holder func(string) string) (d host.ManagementDevice, why string) {
	switch who := holder(c.ID); {
	case c.Leaving:
		return d, "its pool takes it away, or has its NIC changed, as soon as nobody uses it"
	case who != "":
		return d, "in use: " + who
	case c.Trouble != "":
		return d, c.Trouble
	}
	d, err := m.find(c.ID, had)
	if err != nil {
		return d, err.Error()
	}
	return d, ""
}

// noneFree says why no device of a resource is the port, by device.
func noneFree(resource string, against []string) error {
	const some = 4
	if len(against) == 0 {
		return fmt.Errorf("no DevicePool offers a device of resource %s on this node: make one, or leave the node out by spec.managementPort.nodeSelector", resource)
	}
	text := strings.Join(against[:min(len(against), some)], "; ")
	if left := len(against) - some; left > 0 {
		text += fmt.Sprintf("; and %d more", left)
	}
	return fmt.Errorf("no device of resource %s is free (%s): free one, or have the DevicePool make more", resource, text)
}

// pick keeps a device from pods; "" none.
func (m *management) pick(id string) {
	m.mu.Lock()
	same := m.picked == id
	m.picked = id
	m.mu.Unlock()
	if !same {
		m.pools.Look()
	}
}
