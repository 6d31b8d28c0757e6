package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// floor is the least that a CNI on OVN can take without preparing anything: two
// transactions, of a logical port and of an OVS port whose device is there, sent
// at once over open connections, then ovn-installed. Its ports are on a switch of
// their own beside Portolan's topology, under the same northd and ovn-controller.
type floor struct {
	nb, ovs *session
	more    int // ports beside the first, in the same two transactions
}

const floorSwitch = "floor"

func newFloor(ctx context.Context, z *zone) (*floor, error) {
	nb, err := dial(ctx, z.socket("nb"))
	if err != nil {
		return nil, err
	}
	ovs, err := dial(ctx, z.socket("ovs"))
	if err != nil {
		return nil, err
	}
	f := &floor{nb: nb, ovs: ovs}
	add := operation{Op: "insert", Table: "Logical_Switch", Row: columns{"name": floorSwitch}}
	return f, errors.Join(nb.transact(ctx, "OVN_Northbound", add), ovs.monitorInstalled(ctx))
}

func (f *floor) name() string { return "OVN's floor" }

// device is of a sandbox's n-th port.
func device(s sandbox, n int) string {
	return fmt.Sprintf("f%sx%d", strings.ReplaceAll(strings.TrimPrefix(s.id, "ptb-"), "-", "x"), n)
}

// port is the logical port that goes with it.
func port(s sandbox, n int) string { return fmt.Sprintf("%s-%d", s.pod, n) }

// each does something for every port.
func (f *floor) each(do func(n int) error) error {
	for n := range f.more + 1 {
		if err := do(n); err != nil {
			return err
		}
	}
	return nil
}

// bind makes the devices: what a prepared port would cost besides is not the floor's.
func (f *floor) bind(_ context.Context, s sandbox) error {
	return f.each(func(n int) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device(s, n)
		pair := netlink.NewVeth(attrs)
		pair.PeerName = "e" + device(s, n)
		return errors.Join(netlink.LinkAdd(pair), netlink.LinkSetUp(pair))
	})
}

func (f *floor) add(ctx context.Context, s sandbox) error {
	var installed []<-chan struct{}
	var logical, ports []operation
	_ = f.each(func(n int) error {
		installed = append(installed, f.ovs.installed(device(s, n)))
		row, iface := fmt.Sprint("port", n), fmt.Sprint("iface", n)
		logical = append(logical, operation{Op: "insert", Table: "Logical_Switch_Port", UUIDName: row, Row: columns{"name": port(s, n),
			"addresses": address(s, n), "options": pairs{{"requested-chassis", nodeName}}}},
			operation{Op: "mutate", Table: "Logical_Switch", Where: where("name", floorSwitch), Mutations: insert("ports", row)})
		ports = append(ports, operation{Op: "insert", Table: "Interface", UUIDName: iface, Row: columns{"name": device(s, n), "external_ids": pairs{{"iface-id", port(s, n)}}}},
			operation{Op: "insert", Table: "Port", UUIDName: row, Row: columns{"name": device(s, n), "interfaces": named(iface)}},
			operation{Op: "mutate", Table: "Bridge", Where: where("name", intent.IntegrationBridge), Mutations: insert("ports", row)})
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- f.nb.transact(ctx, "OVN_Northbound", logical...) }()
	err := f.ovs.transact(ctx, "Open_vSwitch", ports...)
	if err := errors.Join(err, <-done); err != nil {
		return err
	}
	for _, i := range installed {
		select {
		case <-i:
		case <-ctx.Done():
			return fmt.Errorf("no ovn-installed: %w", ctx.Err())
		}
	}
	return nil
}

// del takes both ports away and waits for the databases alone: nothing tells when
// OVN has forgotten a port.
func (f *floor) del(ctx context.Context, s sandbox) error {
	return f.each(func(n int) error {
		done := make(chan error, 1)
		go func() { done <- f.remove(ctx, f.nb, "OVN_Northbound", "Logical_Switch_Port", port(s, n)) }()
		return errors.Join(f.remove(ctx, f.ovs, "Open_vSwitch", "Port", device(s, n)), <-done)
	})
}

// remove cuts the one port out of the sets that may hold it. Its UUID is not
// known, so it is asked for: a select in front, in the floor's own time.
func (f *floor) remove(ctx context.Context, c *session, database, table, name string) error {
	id, err := c.find(ctx, database, table, name)
	if err != nil {
		return err
	}
	parent := operation{Op: "mutate", Table: "Bridge", Where: where("name", intent.IntegrationBridge)}
	if table == "Logical_Switch_Port" {
		parent = operation{Op: "mutate", Table: "Logical_Switch", Where: where("name", floorSwitch)}
	}
	parent.Mutations = []any{[]any{"ports", "delete", []any{"uuid", id}}}
	return c.transact(ctx, database, parent)
}

func (f *floor) clear(_ context.Context, s sandbox) error {
	return f.each(func(n int) error {
		l, err := netlink.LinkByName(device(s, n))
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

// address is any MAC and address of the sandbox's own n-th port.
func address(s sandbox, nth int) string {
	var k, n int
	_, _ = fmt.Sscanf(s.id, "ptb-%d-%d", &k, &n)
	return fmt.Sprintf("0a:58:0a:%02x:%02x:%02x 10.%d.%d.%d", 246+nth, n/200, n%200+2, 246+nth, n/200, n%200+2)
}
