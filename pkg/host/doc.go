// Package host makes a node's kernel and its gateway bridge be what the agent
// declares: links, addresses, routes, rules, sysctls, hidden NICs, and the
// OpenFlow of the bridge that has the node's NIC.
//
//	Discover ──> Gateway ──> Declare ──> Config ──> Keeper ──> Kernel.Set ──> netlink, /proc/sys, nft
//	                │                                  ^ netlink events, every 30 s
//	                └──> GatewayFlows.Text ──> FlowLoader ──> ovs-ofctl
//	                                               ^ new text, vswitchd's start
//
// Set is idempotent: on a host that is as declared it writes nothing. What an
// earlier Set made and this one does not declare is taken away: routes and rules
// are recognised by their protocol number, nftables by the table, addresses and
// sysctls by a record that is written before the change. Nothing else is touched.
//
// What the NIC had before it was taken over is saved first (gateway.json), so
// that a crash at any step, a reboot and Cleanup all find their way back.
package host
