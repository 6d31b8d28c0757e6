package rig

import "os/exec"

// Wire is a cable with many ends: a bridge on a host of its own.
type Wire struct{ *Host }

// Wire makes a wire.
func (l *Lab) Wire() Wire {
	l.t.Helper()
	Modules(l.t, "bridge", "veth")
	h := l.Host("wire")
	h.Sh("ip link add br0 type bridge\nip link set br0 up")
	return Wire{h}
}

// Plug makes a device of a host, with an address, whose other end is on the wire.
func (w Wire) Plug(h *Host, device, addr string) {
	h.t().Helper()
	end := h.Name + "-" + device
	w.ip("link", "add", end, "type", "veth", "peer", "name", device, "netns", h.PID())
	w.Join(end)
	h.Run("ip", "addr", "add", addr, "dev", device)
	h.Run("ip", "link", "set", device, "up")
}

// Join makes a device of the wire's host an end of the wire.
func (w Wire) Join(device string) {
	w.t().Helper()
	w.ip("link", "set", device, "master", "br0", "up")
}

// ip works in the host's network namespace and in the guest's PID namespace,
// whose numbers name the other hosts.
func (h *Host) ip(args ...string) {
	h.t().Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + h.netns(), "ip"}, args...)...).CombinedOutput()
	if err != nil {
		h.t().Fatalf("%s: ip %v: %v: %s", h.Name, args, err, out)
	}
}
