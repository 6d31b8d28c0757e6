//go:build guest

package suite

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
	"github.com/portolan-cni/portolan/offload"
)

// poolFile is a DevicePool of one NIC.
func poolFile(pf, mode string, vfs int) string {
	return fmt.Sprintf("---\napiVersion: portolan.io/v1alpha1\nkind: DevicePool\nmetadata: {name: p}\nspec: {resourceName: portolan.io/fast, nics: {pfNames: [%s]}, vfs: %d, mode: %s}\n", pf, vfs, mode)
}

// deviceConfig is the default network's configuration as it comes from who has
// allocated a device.
func deviceConfig(device string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","deviceID":%q}`, device)
}

// becomes waits until a NIC is in a mode, with so many representors.
func becomes(t *testing.T, n *rig.NIC, mode string, reps int) {
	t.Helper()
	rig.Wait(t, fmt.Sprintf("mode %s with %d representors", mode, reps), func() error {
		if now, list := n.Mode(), slices.Sorted(maps.Values(n.Representors())); now != mode || len(list) != reps {
			return fmt.Errorf("mode %s, representors %v", now, list)
		}
		return nil
	})
}

// TestOwnProduct: a DevicePool puts a NIC into switchdev mode, portolan-cni gives its
// functions to pods, and their flows are in the driver, also where connections are
// tracked; a pod on a veth pair is told not to be.
func TestOwnProduct(t *testing.T) {
	l := rig.New(t)
	intent := nodeFile(1) + podFile(1, "east", "") + podFile(1, "west", "") + podFile(1, "plain", "")
	s := newSite(l, t, "  offload: {mode: hardware}\n", intent)
	h := s.host(1, nil)
	n := h.BareNIC(1)
	a := s.start(t, h)
	h.Write("intent/all.yaml", intent+poolFile(n.PF, "switchdev", 2))
	becomes(t, n, "switchdev", 2)
	n.Play()
	calls := []call{{pod: "east", config: deviceConfig(n.VFID(0))}, {pod: "west", config: deviceConfig(n.VFID(1))}}
	var pods []*rig.Pod
	for _, c := range calls {
		a.netns(c.pod)
		pods = append(pods, a.attach(t, c))
	}
	plain := a.add(t, "plain")
	east, west := pods[0], pods[1]
	repE, repW := a.port(t, "default_east"), a.port(t, "default_west")
	if repE != n.VFs[0].Rep || repW != n.VFs[1].Rep {
		t.Fatalf("ports %s and %s, representors %+v", repE, repW, n.VFs)
	}
	l.Run("SameNode", func(t *testing.T) {
		stop := talk(t, east, west)
		defer stop()
		flowsFrom(t, a.OVS, repE, "tc", "yes")
		flowsFrom(t, a.OVS, repW, "tc", "yes")
		a.tells(t, "east", "eth0", offload.InHardware)
	})
	l.Run("Conntrack", func(t *testing.T) {
		a.track("default_west", "tcp")
		stop := talk(t, east, west)
		defer stop()
		flowsFrom(t, a.OVS, repE, "tc", "yes")
		flowsFrom(t, a.OVS, repW, "tc", "yes")
		inDriver(t, h)
		a.tells(t, "east", "eth0", offload.InHardware)
	})
	l.Run("VethIsNot", func(t *testing.T) {
		a.Forget()
		stop := talk(t, east, plain)
		defer stop()
		flowsFrom(t, a.OVS, a.port(t, "default_plain"), "tc", "")
		a.tells(t, "plain", "eth0", offload.InSoftware, offload.NoDevice)
		a.tells(t, "east", "eth0", offload.InSoftware, offload.EgressVeth)
	})
	l.Run("PoolWaits", func(t *testing.T) { poolWaits(t, a, n, intent, calls) })
	l.Run("PoolBack", func(t *testing.T) {
		h.Write("intent/all.yaml", intent+poolFile(n.PF, "switchdev", 2))
		a.kill()
		a.run()
		becomes(t, n, "switchdev", 2)
	})
}

// poolWaits: a pool that asks for another mode takes no function from a pod, also when
// the agent is killed meanwhile; when they are free it is done.
func poolWaits(t *testing.T, a *agent, n *rig.NIC, intent string, calls []call) {
	a.Write("intent/all.yaml", intent+poolFile(n.PF, "legacy", 2))
	for range 2 {
		a.complains(t, "waits until it is not in use any more")
		if mode := n.Mode(); mode != "switchdev" {
			t.Fatalf("pods have functions, and the mode is %s", mode)
		}
		a.kill()
		a.run()
		a.ready(t)
	}
	for _, c := range calls {
		a.del(t, c)
	}
	becomes(t, n, "legacy", 0)
}

// TestOwnTwoAgents: two nodes of the product, each on a NIC in switchdev mode that its
// tunnels go through, as an administrator has set it up before: packets between
// functions are in both drivers, both ways.
func TestOwnTwoAgents(t *testing.T) {
	l := rig.New(t)
	s := newSite(l, t, "  offload: {mode: hardware}\n", nodeFile(1)+nodeFile(2)+podFile(1, "east", "")+podFile(2, "west", ""))
	var agents []*agent
	var pods []*rig.Pod
	for i, name := range []string{"east", "west"} {
		var n *rig.NIC
		h := s.host(i+1, func(h *rig.Host) string {
			n = h.NewNIC(i+1, 1)
			n.Switchdev()
			n.Cable(s.wire)
			return n.PF
		})
		a := s.start(t, h)
		a.netns(name)
		agents, pods = append(agents, a), append(pods, a.attach(t, call{pod: name, config: deviceConfig(n.VFID(0))}))
	}
	l.Run("Geneve", func(t *testing.T) {
		stop := talk(t, pods[0], pods[1])
		defer stop()
		for i, name := range []string{"east", "west"} {
			flowsFrom(t, agents[i].OVS, agents[i].port(t, "default_"+name), "tc", "yes")
			flowsFrom(t, agents[i].OVS, "genev_sys_6081", "tc", "yes")
			agents[i].tells(t, name, "eth0", offload.InHardware)
		}
	})
	l.Run("LoadBalancer", func(t *testing.T) { farBackend(t, agents, pods) })
}

// farBackend: the backend is on the other node. Requests are translated before they go
// into the tunnel, in the driver; answers come out of it and are translated then, which
// this driver leaves to software. The backend's node knows no load balancer.
func farBackend(t *testing.T, agents []*agent, pods []*rig.Pod) {
	agents[0].balance(t, "tcp", nil, pods[1])
	s, err := rig.TalkBy(pods[0], serviceAddress, 5001, pods[1])
	if err != nil {
		t.Fatal(err)
	}
	flowsFrom(t, agents[0].OVS, agents[0].port(t, "default_east"), "tc", "yes")
	flowsFrom(t, agents[0].OVS, "genev_sys_6081", "tc", "")
	agents[0].tells(t, "east", "eth0", offload.Partly)
	flowsFrom(t, agents[1].OVS, agents[1].port(t, "default_west"), "tc", "yes")
	flowsFrom(t, agents[1].OVS, "genev_sys_6081", "tc", "yes")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
