package doctor

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// port is one that Portolan or a daemon of it listens on.
type port struct {
	number   int
	protocol string // tcp, udp
	what     string
}

// wanted lists the ports of a node.
func wanted(p Plan) []port {
	out := []port{
		{6081, "udp", "Geneve tunnels"},
		{9410, "tcp", "portolan-node's metrics and probes"},
		{9411, "tcp", "portolan-manager's metrics and probes"},
	}
	if p.GlobalZone {
		out = append(out, port{6641, "tcp", "the northbound database"}, port{6642, "tcp", "the southbound database"})
	}
	return out
}

// ports says which of ours are somebody else's.
func (m Machine) ports(p Plan) []Check {
	var out []Check
	for _, w := range wanted(p) {
		c := Check{Name: fmt.Sprintf("port-%d", w.number), State: OK, Found: fmt.Sprintf("%s/%d is free, for %s", w.protocol, w.number, w.what)}
		if inode, taken := m.listening(w); taken {
			who := m.holder(inode)
			switch {
			case ours(who):
				c.Found = fmt.Sprintf("%s/%d is held by %s", w.protocol, w.number, who)
			case inode == "0" && w.protocol == "udp":
				c.Found = fmt.Sprintf("%s/%d is the kernel's: a tunnel device is there", w.protocol, w.number)
			default:
				c.State = Fail
				c.Found = fmt.Sprintf("%s/%d, wanted for %s, is taken by %s", w.protocol, w.number, w.what, who)
				c.Do = "stop it or move it to another port"
			}
		}
		out = append(out, c)
	}
	return out
}

// ours are the programs of Portolan's own containers.
func ours(program string) bool {
	return strings.HasPrefix(program, "portolan") || strings.HasPrefix(program, "ovs") || strings.HasPrefix(program, "ovn")
}

// listening finds a socket that has the port, and its inode.
func (m Machine) listening(w port) (inode string, taken bool) {
	for _, file := range []string{w.protocol, w.protocol + "6"} {
		f, err := os.Open(filepath.Join(m.Proc, "net", file))
		if err != nil {
			continue // no IPv6 in this kernel
		}
		inode, taken = sockets(f, w)
		f.Close()
		if taken {
			return inode, true
		}
	}
	return "", false
}

// sockets reads a table of /proc/net (proc_net_tcp in the kernel's documentation).
func sockets(f *os.File, w port) (string, bool) {
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 10 {
			continue
		}
		_, text, ok := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(text)
		if !ok || err != nil || len(raw) != 2 || int(raw[0])<<8|int(raw[1]) != w.number {
			continue
		}
		if listen := "0A"; w.protocol == "udp" || fields[3] == listen {
			return fields[9], true
		}
	}
	return "", false
}

// holder is the program that has a socket; "a program that cannot be seen" where
// /proc does not show it.
func (m Machine) holder(inode string) string {
	want := "socket:[" + inode + "]"
	links, _ := filepath.Glob(filepath.Join(m.Proc, "[0-9]*/fd/*"))
	for _, l := range links {
		if target, err := os.Readlink(l); err != nil || target != want {
			continue
		}
		dir := filepath.Dir(filepath.Dir(l))
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
			return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
		}
	}
	return "a program that cannot be seen from here"
}

// portRanges holds three ranges apart that all take ports of the node's address: what
// the host dials from, what SNAT gives to pods, and what Services listen on.
func (m Machine) portRanges(p Plan) Check {
	c := Check{Name: "port-ranges", State: OK}
	text, err := os.ReadFile(filepath.Join(m.Proc, "sys/net/ipv4/ip_local_port_range"))
	if err != nil {
		return Check{Name: c.Name, State: Warn, Found: err.Error()}
	}
	var local [2]int
	if _, err := fmt.Sscan(string(text), &local[0], &local[1]); err != nil {
		return Check{Name: c.Name, State: Warn, Found: fmt.Sprintf("ip_local_port_range %q: %v", text, err)}
	}
	nodePorts := p.NodePorts
	if nodePorts[1] == 0 {
		nodePorts = [2]int{30000, 32767}
	}
	c.Found = fmt.Sprintf("the host dials from %s, node ports are %s", span(local), span(nodePorts))
	var clashes []string
	if p.ExternalPorts[1] == 0 {
		c.Found += ", pods' outgoing connections may have any"
		clashes = append(clashes, "set spec.gateway.externalPortRange, to 1024-29999 for instance: a pod's connection may get a port that the host uses")
	} else {
		c.Found += ", pods' outgoing connections get " + span(p.ExternalPorts)
		if overlap(p.ExternalPorts, local) {
			clashes = append(clashes, "spec.gateway.externalPortRange and net.ipv4.ip_local_port_range overlap: connections of pods and of the host to one server may be mixed up")
		}
		if overlap(p.ExternalPorts, nodePorts) {
			clashes = append(clashes, "spec.gateway.externalPortRange and the node ports overlap")
		}
	}
	if overlap(local, nodePorts) {
		clashes = append(clashes, "the host may dial from a node port: reserve them, net.ipv4.ip_local_reserved_ports="+span(nodePorts))
	}
	if len(clashes) > 0 {
		c.State, c.Do = Warn, strings.Join(clashes, "; ")
		if p.ExternalPorts[1] != 0 && (overlap(p.ExternalPorts, local) || overlap(p.ExternalPorts, nodePorts)) {
			c.State = Fail
		}
	}
	if c.State == Warn && m.reserved(nodePorts) && p.ExternalPorts[1] != 0 {
		c.State, c.Do = OK, ""
	}
	return c
}

// reserved reports whether a range is kept from the host's own outgoing connections.
func (m Machine) reserved(r [2]int) bool {
	text, err := os.ReadFile(filepath.Join(m.Proc, "sys/net/ipv4/ip_local_reserved_ports"))
	return err == nil && slices.ContainsFunc(strings.Split(strings.TrimSpace(string(text)), ","), func(part string) bool {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, errA := strconv.Atoi(first)
		b, errB := strconv.Atoi(last)
		return errA == nil && errB == nil && a <= r[0] && r[1] <= b
	})
}

func span(r [2]int) string { return fmt.Sprintf("%d-%d", r[0], r[1]) }

func overlap(a, b [2]int) bool { return a[0] <= b[1] && b[0] <= a[1] }
