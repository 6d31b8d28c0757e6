package topology

import (
	"net/netip"
	"strconv"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Refs of what every zone has once.
var (
	clusterRouter = rows.Ref{Table: "NB:Logical_Router", ID: rows.ClusterRouter}
	joinSwitch    = rows.Ref{Table: "NB:Logical_Switch", ID: rows.JoinSwitch}
	copp          = rows.Ref{Table: "NB:Copp", ID: coppName}
)

const coppName = "portolan-default"

// punted lists the control plane meters: what a router sends to ovn-controller
// (ovn-nb(5), Copp).
func punted() []string {
	return []string{"arp", "arp-resolve", "bfd", "event-elb", "icmp4-error", "icmp6-error", "reject", "svc-monitor", "tcp-reset"}
}

// Cluster makes what a zone has once.
func Cluster(v *intent.View, _ string) rows.Output {
	var out rows.Output
	c, ok := v.Cluster()
	if !ok || c.Zone == "" {
		return out
	}
	meters(&out, c)
	// Of a key on a row that is not ours nobody knows after a restart that it was ours:
	// where the plan speaks of offload it always has a value.
	if c.Offload.Mode != "" {
		match := strconv.FormatBool(!c.Offload.DeliverInvalid)
		out.Link(rows.Entry(rows.Ref{Table: "NB:NB_Global", ID: rows.Singleton}, "options", "use_ct_inv_match", match))
	}
	f := defaultFabric(c)
	f.addRouter(&out, c.Multicast, map[string]string{"k8s-cluster-router": "yes"})
	out.Add(rows.New("NB:Logical_Switch", rows.JoinSwitch, map[string]rows.Value{"name": rows.Str(rows.JoinSwitch)}))
	var hubs []netip.Prefix
	for _, s := range c.JoinSubnets {
		if hub, ok := rows.Nth(s, 1); ok && len(sameFamily(c.PodSubnets, prefixAddr, s.Addr())) > 0 {
			hubs = append(hubs, hub)
		}
	}
	if len(hubs) > 0 {
		routerLink(&out, link{
			sw: joinSwitch, swPort: "jtor-" + rows.ClusterRouter,
			router: clusterRouter, routerPort: "rtoj-" + rows.ClusterRouter, networks: hubs,
		})
	}
	if !c.GlobalZone {
		f.addTransit(&out)
	}
	return out
}

// meters makes one rate limit for each kind of punted packet, and the Copp row
// that routers name.
func meters(out *rows.Output, c *intent.Cluster) {
	rate := c.PuntRate
	if rate == 0 {
		rate = 25
	}
	protocols := map[string]string{}
	var names []rows.Name
	for _, p := range punted() {
		name := p + "-rate-limiter"
		protocols[p] = name
		names = append(names, rows.Name{DB: rows.NB, Kind: rows.Meter, Name: name})
		meter := rows.Ref{Table: "NB:Meter", ID: name}
		out.Add(rows.Child("NB:Meter_Band", name, meter, "bands", map[string]rows.Value{
			"action": rows.Str("drop"), "rate": rows.Num(int64(rate)),
		}))
		out.Add(rows.New("NB:Meter", name, map[string]rows.Value{
			"name": rows.Str(name), "unit": rows.Str("pktps"), "fair": rows.Flag(true),
		}))
	}
	out.Add(rows.New("NB:Copp", coppName, map[string]rows.Value{
		"name": rows.Str(coppName), "meters": rows.Map(protocols),
	}).Using(names...))
}

// link is a router port and the switch port it plugs into.
type link struct {
	sw         rows.Ref
	swPort     string
	swOptions  map[string]string
	swIDs      map[string]string // external_ids of the switch port
	router     rows.Ref
	routerPort string
	networks   []netip.Prefix
	mac        string // "": from the first network
	options    map[string]string
	ids        map[string]string // external_ids of the router port
}

// routerLink makes both ends of a link.
func routerLink(out *rows.Output, l link) {
	if l.mac == "" {
		l.mac = rows.MAC(l.networks[0].Addr())
	}
	out.Add(rows.Child("NB:Logical_Router_Port", l.routerPort, l.router, "ports", map[string]rows.Value{
		"name": rows.Str(l.routerPort), "mac": rows.Str(l.mac), "networks": rows.Strings(texts(l.networks)...),
		"options": rows.Map(l.options), "external_ids": rows.Map(l.ids),
	}))
	options := map[string]string{"router-port": l.routerPort}
	for k, v := range l.swOptions {
		options[k] = v
	}
	out.Add(rows.Child("NB:Logical_Switch_Port", l.swPort, l.sw, "ports", map[string]rows.Value{
		"name": rows.Str(l.swPort), "type": rows.Str("router"), "addresses": rows.Str("router"), "options": rows.Map(options),
		"external_ids": rows.Map(l.swIDs),
	}).Using(rows.Name{DB: rows.NB, Kind: rows.RouterPort, Name: l.routerPort}))
}

// route adds a static route to a router.
func route(out *rows.Output, router rows.Ref, id string, columns map[string]string) {
	values := map[string]rows.Value{}
	for name, text := range columns {
		values[name] = rows.Str(text)
	}
	r := rows.Child("NB:Logical_Router_Static_Route", router.ID+"/"+id, router, "static_routes", values)
	if port := columns["output_port"]; port != "" {
		r = r.Using(rows.Name{DB: rows.NB, Kind: rows.RouterPort, Name: port})
	}
	out.Add(r)
}
