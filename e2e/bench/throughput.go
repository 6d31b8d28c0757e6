package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// plainBridge forwards between two ports by one flow each, and does nothing else.
const plainBridge = "br-plain"

// streams is how often each pair is measured, in turn.
const streams = 10

// timeThroughput is part throughput: one TCP stream between two pods, and between
// two namespaces on a bridge of the same vswitchd that has one flow for each direction.
func timeThroughput(ctx context.Context, o options, n *node, w io.Writer) error {
	pods, err := podPair(ctx, o, n, "from", "to")
	if err != nil {
		return err
	}
	plain, err := plainPair(ctx, n.zone)
	if err != nil {
		return err
	}
	var ratios, rates []float64
	for round := range streams {
		var got [2]float64
		for _, k := range []int{round % 2, 1 - round%2} {
			pair := [][2]attached{pods, plain}[k]
			if got[k], err = stream(ctx, pair[0], pair[1], o.spell/10); err != nil {
				return err
			}
		}
		ratios, rates = append(ratios, got[0]/got[1]), append(rates, got[1])
	}
	slices.Sort(ratios)
	slices.Sort(rates)
	fmt.Fprintf(w, "%d streams of %s each, in turns: pod to pod is %.0f %% of the bridge with one flow (median; worst %.0f %%, best %.0f %%),\nwhich passes %.2f Gbit/s here, on vswitchd's own datapath\n",
		streams, o.spell/10, 100*ratios[len(ratios)/2], 100*ratios[0], 100*ratios[len(ratios)-1], rates[len(rates)/2])
	return nil
}

// attached is a network namespace on a bridge.
type attached struct {
	netns   string
	port    string // of the bridge
	mac     string
	address string
}

// podPair attaches two pods as a runtime does. They stay.
func podPair(ctx context.Context, o options, n *node, names ...string) (pair [2]attached, err error) {
	p := &portolan{node: n, shim: o.shim}
	for i, name := range names {
		s := sandbox{id: "ptb-" + name, pod: name, netns: filepath.Join(netnsDir, "ptb-"+name)}
		if err := exec.CommandContext(ctx, "ip", "netns", "add", filepath.Base(s.netns)).Run(); err != nil {
			return pair, err
		}
		n.bind(p.pod(s))
		if err := execute(ctx, o.shim, wire.Add, s, p.config()); err != nil {
			return pair, err
		}
		port, err := n.zone.output("ovs-vsctl", "--db="+n.zone.socket("ovs"), "--bare", "--columns=name", "find", "interface", "external_ids:sandbox="+s.id)
		if err != nil {
			return pair, err
		}
		address := n.addressOf(p.pod(s))
		pair[i] = attached{s.netns, strings.TrimSpace(port), rows.MAC(netip.MustParseAddr(address)), address}
	}
	return pair, nil
}

// plainPair makes two namespaces on the plain bridge. Checksum offload is off as it
// is for pods: the userspace datapath needs that.
func plainPair(ctx context.Context, z *zone) (pair [2]attached, err error) {
	run := func(name string, args ...string) {
		if err == nil {
			var out []byte
			if out, err = exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
				err = fmt.Errorf("%s %v: %w: %s", name, args, err, out)
			}
		}
	}
	err = z.vsctl(ctx, "add-br", plainBridge, "--", "set", "bridge", plainBridge, "datapath_type=netdev", "fail_mode=secure")
	for i := range pair {
		ns, port := fmt.Sprintf("ptb-plain-%d", i), fmt.Sprintf("plain%d", i)
		pair[i] = attached{netns: filepath.Join(netnsDir, ns), port: port, address: fmt.Sprintf("10.247.0.%d", i+1)}
		run("ip", "netns", "add", ns)
		run("ip", "link", "add", port, "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", "eth0", "mtu", fmt.Sprint(mtu), "netns", ns)
		run("ethtool", "-K", port, "tx", "off")
		run("ip", "link", "set", port, "up")
		run("ip", "netns", "exec", ns, "ethtool", "-K", "eth0", "tx", "off")
		run("ip", "-n", ns, "addr", "add", pair[i].address+"/24", "dev", "eth0")
		run("ip", "-n", ns, "link", "set", "eth0", "up")
		err = errors.Join(err, z.vsctl(ctx, "add-port", plainBridge, port, "--", "set", "interface", port, fmt.Sprintf("ofport_request=%d", i+1)))
	}
	return pair, errors.Join(err, z.tool(ctx, "ovs-ofctl", "add-flow", "unix:"+filepath.Join(z.dir, plainBridge+".mgmt"), "in_port=1,actions=2"),
		z.tool(ctx, "ovs-ofctl", "add-flow", "unix:"+filepath.Join(z.dir, plainBridge+".mgmt"), "in_port=2,actions=1"))
}

// stream sends for a while and gives what arrives, in Gbit/s.
func stream(ctx context.Context, from, to attached, d time.Duration) (float64, error) {
	var l net.Listener
	var conn net.Conn
	var err error
	if e := within(to.netns, func() { l, err = net.Listen("tcp", to.address+":0") }); e != nil || err != nil {
		return 0, errors.Join(e, err)
	}
	defer l.Close()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if e := within(from.netns, func() { conn, err = dialer.DialContext(ctx, "tcp", l.Addr().String()) }); e != nil || err != nil {
		return 0, errors.Join(e, err)
	}
	defer conn.Close()
	server, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer server.Close()
	began := time.Now()
	_ = conn.SetDeadline(began.Add(d))
	go func() { // ends at the deadline, which closes what is read
		chunk := make([]byte, 1<<18)
		for {
			if _, err := conn.Write(chunk); err != nil {
				_ = conn.Close()
				return
			}
		}
	}()
	got, err := io.Copy(io.Discard, struct{ io.Reader }{server})
	if got == 0 {
		return 0, fmt.Errorf("nothing arrived from %s at %s: %w", from.address, to.address, err)
	}
	return float64(got) * 8 / 1e9 / time.Since(began).Seconds(), nil
}

// within runs f on a thread in a network namespace; sockets made there stay there.
func within(path string, f func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with this goroutine: it does not come back
		ns, err := os.Open(path)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}
