// Package topology compiles networks' routers and switches: what is there once for
// a zone, what each node of the zone adds, and what a node of another zone leaves
// here. The default network is a layer3 network (fabric, site) with a join switch,
// gateways and management ports beside:
//
//	pods ─ <node> ─ rtos-<node> ┐                              ┌ jtor/rtoj-GR_<node> ─ GR_<node>
//	                            ├─ ovn_cluster_router ─ join ──┤      NAT, default route │
//	  transit_switch ─ rtots-<n>┘        rtoj-ovn_cluster_router  rtoe-GR_<node> ─ ext_<node> ─ br-ex
//	   └ tstor-<other> (remote)
//
// Cluster makes the shared objects; Node, for a node of this zone, its switch,
// gateway router and external switch, and for a node of another zone one remote
// port on the transit switch, two routes, and the chassis that the tunnel goes
// to (SB): O(1) rows a node in every other zone. When every node is of one zone
// there is no transit switch.
//
// Network, Presence and Block make the same of a network beside the default one, while
// pods of the zone use it: its router and transit switch, or its one switch; what a
// node with such pods adds; and what pods of other zones leave here.
//
// All addresses but the pod subnets are arithmetic over the node id: join
// 100.64.0.0/16 + id, transit 100.88.0.0/16 + id, MACs from addresses
// (rows.MAC), tunnel keys. The first address of a node's subnet is its router's,
// the second its management port's. IPv4, IPv6 and both compile alike: every
// list has one entry per family.
//
// Two things differ from what one might expect of OVN. Traffic from a pod to its
// own node's address is sent to the management port (router policy 1004), so
// that the node sees the pod's address; and DHCP server packets from pods are
// dropped on the node's switch by a tier 0 ACL, because port security lets a
// pod's own address offer leases (decision 31).
package topology
