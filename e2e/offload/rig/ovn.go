package rig

import (
	"fmt"
	"strings"
)

// Central is OVN's northbound and southbound database and northd, on one host.
type Central struct {
	*Host
	addr string
}

// StartCentral starts them. addr is an address of the host at which the southbound
// database listens (plain TCP, port 6642).
func (h *Host) StartCentral(addr string) Central {
	h.t().Helper()
	h.Sh(`mkdir -p /var/lib/ovn /var/log/ovn
for x in nb sb; do
	remotes=--remote=punix:/run/ovn/ovn${x}_db.sock
	[ $x = nb ] || remotes="$remotes --remote=ptcp:6642:` + addr + `"
	ovsdb-tool create /var/lib/ovn/ovn${x}_db.db /usr/share/ovn/ovn-$x.ovsschema
	ovsdb-server /var/lib/ovn/ovn${x}_db.db $remotes --pidfile=/run/ovn/ovn${x}_db.pid --unixctl=/run/ovn/ovn${x}_db.ctl \
		--log-file=/var/log/ovn/ovsdb-server-$x.log -vconsole:off --detach --no-chdir
done
ovn-northd --ovnnb-db=unix:/run/ovn/ovnnb_db.sock --ovnsb-db=unix:/run/ovn/ovnsb_db.sock --pidfile --log-file=/var/log/ovn/ovn-northd.log -vconsole:off --detach --no-chdir`)
	return Central{h, addr}
}

// Nbctl runs ovn-nbctl with one or more commands, each a line.
func (c Central) Nbctl(lines string) string {
	c.t().Helper()
	argv := []string{"ovn-nbctl"}
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		if fields := quoted(line); len(fields) > 0 {
			argv = append(append(argv, "--"), fields...)
		}
	}
	return c.Run(argv...)
}

// quoted cuts a line at spaces, but not between single quotes.
func quoted(line string) []string {
	var out []string
	for i, part := range strings.Split(strings.TrimSpace(line), "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}

// Sync waits until every chassis has done what the northbound database says.
func (c Central) Sync() {
	c.t().Helper()
	c.Run("ovn-nbctl", fmt.Sprintf("--timeout=%d", int(Patience.Seconds())), "--wait=hv", "sync")
}

// Controller starts ovn-controller, with tunnels from encap.
func (o OVS) Controller(c Central, encap string) {
	o.t().Helper()
	o.Vsctl("set", "Open_vSwitch", ".", "external_ids:system-id="+o.Name, "external_ids:ovn-remote=tcp:"+c.addr+":6642",
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip="+encap)
	o.Sh("mkdir -p /var/log/ovn\novn-controller --pidfile --log-file=/var/log/ovn/ovn-controller.log -vconsole:off --detach --no-chdir")
	Wait(o.t(), "br-int of "+o.Name, func() error {
		_, err := o.Try("ovs-vsctl", "br-exists", "br-int")
		return err
	})
}
