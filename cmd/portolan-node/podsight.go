package main

import (
	"context"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/door"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// progress tells how far a pod of this node has come.
func (a *agent) progress(ctx context.Context, p *intent.Pod) (inspect.Pod, error) {
	server := a.server.Load()
	if server == nil || p.Node != a.cfg.Node {
		return inspect.Pod{Interfaces: []inspect.PodInterface{}}, nil
	}
	found, err := server.Progress(ctx, door.PodOf(p))
	out := podOf(found)
	for n := range out.Interfaces {
		v := &out.Interfaces[n]
		if v.Device != nil {
			*v.Device = a.devices.describe(v.Device.ID)
		}
		v.Fallback = a.fallback(p.Namespace+"/"+p.Name, v.Attachment)
	}
	return out, err
}

// podOf is progress in the words of package inspect.
func podOf(found cni.Progress) inspect.Pod {
	out := inspect.Pod{Refused: found.Refused, Status: at(found.Status), Interfaces: []inspect.PodInterface{}}
	if c := found.Call; c.Command != "" {
		out.Call = &inspect.PodCall{Command: c.Command, Stage: c.Stage, Began: c.Began, Entered: c.Entered, Ended: at(c.Ended), Error: c.Err}
	}
	for _, i := range found.Interfaces {
		v := inspect.PodInterface{
			Attachment: i.Key, Interface: i.IfName, Planned: i.Planned, Waits: i.Waits, Pending: i.Pending,
			Network: i.Network, MTU: i.MTU, TunnelKey: i.TunnelKey,
			Allocated: at(i.Allocated), Prepared: at(i.Prepared), Attached: at(i.Attached),
		}
		if i.MAC != nil {
			v.MAC = i.MAC.String()
		}
		for _, p := range i.Addresses {
			v.Addresses = append(v.Addresses, p.String())
		}
		for _, g := range i.Gateways {
			v.Gateways = append(v.Gateways, g.String())
		}
		for _, r := range i.Routes {
			v.Routes = append(v.Routes, r.Destination.String()+" via "+r.Gateway.String())
		}
		if i.Port.Name != "" {
			if i.Port.Device != "" {
				v.Device = &inspect.PodDevice{ID: i.Port.Device}
			}
			v.Port, v.OFPort, v.Sandbox, v.Missing, v.Installed = i.Port.Name, i.State.OFPort, i.Port.Sandbox, i.State.Missing(), at(i.State.Since)
			if v.MAC == "" {
				v.MAC = i.Port.MAC
			}
			if len(v.Addresses) == 0 {
				for _, p := range i.Port.Addresses {
					v.Addresses = append(v.Addresses, p.String())
				}
			}
		}
		out.Interfaces = append(out.Interfaces, v)
	}
	return out
}

// at is a time, nil for none.
func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
