//go:build guest

package suite

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
	"github.com/portolan-cni/portolan/offload"
)

// serviceAddress is what load balancers of tests listen at.
var serviceAddress = netip.MustParseAddrPort("10.96.0.100:80")

// balance puts a load balancer on the switch of a node's pods, as a ClusterIP's, until
// the test ends: Portolan makes none yet. settings are of its row.
func (a *agent) balance(t *testing.T, protocol string, settings []string, backends ...*rig.Pod) {
	t.Helper()
	var list []string
	for _, p := range backends {
		list = append(list, p.Addr.Addr().String()+":5001")
	}
	a.Run("ovn-nbctl", "lb-add", "lb", serviceAddress.String(), strings.Join(list, ","), protocol)
	t.Cleanup(func() { a.Run("ovn-nbctl", "lb-del", "lb") })
	if len(settings) > 0 {
		a.Run(append([]string{"ovn-nbctl", "set", "Load_Balancer", "lb"}, settings...)...)
	}
	a.Run("ovn-nbctl", "ls-lb-add", a.name, "lb")
	a.sync()
	a.Forget()
}

// balanced is a form of load balancer.
type balanced struct {
	name     string
	settings []string
	backends []*rig.Pod
	hashed   bool // a connection's first packet meets a group's hash, which TC has not
}

// groupHash is of flows that compute a hash, or match on one.
var groupHash = regexp.MustCompile(`hash\(l4|dp_hash\(0x[0-9a-f]+/0x`)

// TestOwnLoadBalancer: which forms of load balancers have their connections in the
// driver. It is all of them: where backends are chosen, by a hash or by affinity, only
// first packets come; later ones are tracked and translated, which TC does.
func TestOwnLoadBalancer(t *testing.T) {
	l := rig.New(t)
	names := []string{"east", "west", "south"}
	intent := nodeFile(1)
	for _, name := range names {
		intent += podFile(1, name, "")
	}
	s := newSite(l, t, "  offload: {mode: hardware}\n", intent)
	h := s.host(1, nil)
	n := h.NewNIC(1, len(names))
	n.Switchdev()
	a := s.start(t, h)
	var pods []*rig.Pod
	for i, name := range names {
		a.netns(name)
		pods = append(pods, a.attach(t, call{pod: name, config: deviceConfig(n.VFID(i))}))
	}
	for _, b := range []balanced{
		{"OneBackend", nil, pods[1:2], true},
		{"TwoBackends", nil, pods[1:], true},
		{"SelectionFields", []string{"selection_fields=ip_src,ip_dst"}, pods[1:], false},
		{"Affinity", []string{"options:affinity_timeout=600"}, pods[1:], true},
		{"Hairpin", nil, pods[:1], true},
	} {
		l.Run(b.name, func(t *testing.T) {
			if b.name != "OneBackend" {
				long(t)
			}
			b.offloaded(t, a, pods[0])
		})
	}
	l.Run("Beside", func(t *testing.T) {
		a.balance(t, "tcp", nil, pods[2])
		stop := talk(t, pods[0], pods[1])
		defer stop()
		flowsFrom(t, a.OVS, a.port(t, "default_east"), "tc", "yes")
		flowsFrom(t, a.OVS, a.port(t, "default_west"), "tc", "yes")
		a.tells(t, "east", "eth0", offload.InHardware)
	})
}

// offloaded has a pod talk to the load balancer, until all flows of the connection are in
// the driver, both ways.
func (b balanced) offloaded(t *testing.T, a *agent, from *rig.Pod) {
	a.balance(t, "tcp", b.settings, b.backends...)
	s, err := rig.TalkBy(from, serviceAddress, 5001, b.backends...)
	if err != nil {
		t.Fatal(err)
	}
	hashed := slices.DeleteFunc(a.Flows(), func(f rig.Flow) bool { return !groupHash.MatchString(f.Text) })
	if err := rig.Is(hashed, "ovs", ""); b.hashed && err != nil || !b.hashed && len(hashed) > 0 {
		t.Errorf("first packets' flows with a hash: %v, %v", hashed, err)
	}
	to := b.chosen(t, a)
	for _, pod := range []string{from.Name, to} {
		port := a.port(t, "default_"+pod)
		rig.Wait(t, "all flows from "+pod+" in the driver, through connection tracking", func() error {
			flows := rig.IPFrom(a.Flows(), port)
			if err := rig.Is(flows, "tc", "yes"); err != nil {
				return err
			}
			if !slices.ContainsFunc(flows, func(f rig.Flow) bool { return strings.Contains(f.Actions, "nat") }) {
				return fmt.Errorf("none translates an address: %v", flows)
			}
			return nil
		})
		a.tells(t, pod, "eth0", offload.InHardware)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// chosen waits until the connection to the load balancer is in the driver, and gives the
// pod that has it.
func (b balanced) chosen(t *testing.T, a *agent) (name string) {
	t.Helper()
	rig.Wait(t, "the connection to "+serviceAddress.String()+" in the driver", func() error {
		table := a.Run("conntrack", "-L", "-p", "tcp")
		for line := range strings.Lines(table) {
			if !strings.Contains(line, "[HW_OFFLOAD]") || !strings.Contains(line, "dst="+serviceAddress.Addr().String()+" ") {
				continue
			}
			for _, p := range b.backends {
				if strings.Contains(line, "dport=80 src="+p.Addr.Addr().String()+" ") {
					name = p.Name
					return nil
				}
			}
		}
		return fmt.Errorf("conntrack -L: %s", table)
	})
	return name
}
