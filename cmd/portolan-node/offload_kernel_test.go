//go:build kernel

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/offload"
)

// offloadFile has the node's flows offloaded, as far as this machine can: its
// datapath is userspace.
const offloadFile = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: c}
spec: {clusterSubnets: [10.244.0.0/16/24], serviceSubnets: [10.96.0.0/16], offload: {mode: hardware, invalidConnections: deliver}}
`

// TestOffloadedNode runs the agent and every daemon on a node whose flows are to be
// offloaded: its routers check no packet's length, and all the same large packets find
// their way, also over a link whose MTU is smaller than the pods'. The agent says where
// the pod's packets are moved, and why.
func TestOffloadedNode(t *testing.T) { apart(t, insideOffloaded) }

// narrowMTU is that of a link in the middle of the way to the server; pods' is 1442.
const narrowMTU = 1300

func insideOffloaded(t *testing.T, dir string) {
	tr := readyWith(t, dir, offloadFile)
	for _, c := range []string{
		"ip netns add web", "ip netns add outside", "ip netns add middle", "ip netns add far", "ip link set wire netns outside",
		"ip -n outside addr add 172.30.0.1/24 dev wire", "ip -n outside link set wire up", "ip -n outside link set lo up",
		"ip -n outside link add out1 type veth peer name mid1 netns middle", fmt.Sprintf("ip -n outside link set out1 up mtu %d", narrowMTU),
		fmt.Sprintf("ip -n middle link set mid1 up mtu %d", narrowMTU), "ip -n middle link add mid2 type veth peer name far1 netns far",
		"ip -n middle link set mid2 up", "ip -n far link set far1 up", "ip -n outside addr add 198.51.100.1/24 dev out1", "ip -n middle addr add 198.51.100.2/24 dev mid1",
		"ip -n middle addr add 203.0.113.1/24 dev mid2", "ip -n far addr add 203.0.113.2/24 dev far1", "ip -n outside route add 203.0.113.0/24 via 198.51.100.2",
		"ip -n middle route add default via 198.51.100.1", "ip -n far route add default via 203.0.113.1",
		"ip netns exec outside sysctl -qw net.ipv4.ip_forward=1", "ip netns exec middle sysctl -qw net.ipv4.ip_forward=1",
	} {
		if out, err := tr.run(strings.Fields(c)...); err != nil {
			t.Fatalf("%s: %v %s", c, err, out)
		}
	}
	// vswitchd takes packets as they are: they must leave with their checksums.
	for ns, device := range map[string]string{"outside": "wire", "far": "far1"} {
		tr.within(ns, func() error {
			e, err := ethtool.NewEthtool()
			if err != nil {
				return err
			}
			defer e.Close()
			return e.Change(device, map[string]bool{"tx-checksum-ip-generic": false})
		})
	}
	if out, err := tr.plugin("ADD"); err != nil {
		t.Fatalf("ADD: %v: %s", err, out)
	}
	tr.settings()
	tr.large()
	tr.told()
}

// settings are what the compiler wrote.
func (tr tree) settings() {
	tr.t.Helper()
	for what, c := range map[string][]string{
		"hw-offload true, tc-policy none": {"ovs-vsctl", "get", "Open_vSwitch", ".", "other_config"},
		"use_ct_inv_match=false":          {"ovn-nbctl", "get", "NB_Global", ".", "options"},
	} {
		out, err := tr.run(c...)
		for word := range strings.FieldsSeq(strings.ReplaceAll(strings.ReplaceAll(what, ",", " "), "=", " ")) {
			if err != nil || !strings.Contains(out, word) {
				tr.t.Errorf("%v: %s, %v: wanted %s", c, out, err, what)
			}
		}
	}
	ports, err := tr.run("ovn-nbctl", "--bare", "--columns=name,options", "list", "Logical_Router_Port")
	if err != nil || !strings.Contains(ports, "rtos-n1") || strings.Contains(ports, "gateway_mtu") {
		tr.t.Errorf("router ports %s, %v: wanted none with gateway_mtu", ports, err)
	}
	flows, err := tr.run("ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-int")
	if err != nil || !strings.Contains(flows, "table=") || strings.Contains(flows, "check_pkt_larger") {
		tr.t.Errorf("flows of br-int check lengths, or cannot be read: %v", err)
	}
}

// large sends a megabyte each way between the pod and a server behind a smaller link,
// and asks the node what it makes of a packet that is too big for the pod.
func (tr tree) large() {
	tr.t.Helper()
	const size = 1 << 20
	var listener net.Listener
	tr.within("far", func() (err error) { listener, err = net.Listen("tcp", "203.0.113.2:8080"); return err })
	defer listener.Close()
	served := make(chan error, 1)
	go func() { served <- serveMegabyte(listener, size) }()
	tr.within("web", func() error {
		conn, err := net.DialTimeout("tcp", "203.0.113.2:8080", 10*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write(make([]byte, size)); err != nil {
			return fmt.Errorf("up: %w", err)
		}
		n, err := io.CopyN(io.Discard, conn, size)
		return errors.Join(err, wanted(n, size))
	})
	if err := <-served; err != nil {
		tr.t.Errorf("the server: %v", err)
	}
	route, err := tr.run("ip", "-n", "web", "route", "get", "203.0.113.2")
	if err != nil || !strings.Contains(route, fmt.Sprintf("mtu %d", narrowMTU)) {
		tr.t.Errorf("the pod has not learned the path's MTU, %d: %s, %v", narrowMTU, route, err)
	}
	// 1,415 bytes of payload are 1,443 with their headers: one more than the pod's MTU.
	out, _ := tr.run("ip", "route", "get", "10.244.1.3")
	var said error
	conn, err := net.Dial("udp", "10.244.1.3:9")
	if err == nil {
		defer conn.Close()
		said = dontFragment(conn.(*net.UDPConn), make([]byte, 1415))
	}
	if err != nil || said == nil || !strings.Contains(said.Error(), "message too long") {
		tr.t.Errorf("the node sends a packet that is too big for the pod, and is told %v, %v; its route: %s", said, err, out)
	}
}

func wanted(n, size int64) error {
	if n != size {
		return fmt.Errorf("%d bytes of %d", n, size)
	}
	return nil
}

// serveMegabyte reads and writes as much, once.
func serveMegabyte(l net.Listener, size int64) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.CopyN(io.Discard, conn, size); err != nil {
		return err
	}
	_, err = conn.Write(make([]byte, size))
	return err
}

// told asks the agent where the pod's packets are moved.
func (tr tree) told() {
	tr.t.Helper()
	out, err := tr.run("portolan", "offload", "default/web", "--for", "1s", "--detail", "-o", "json")
	if err != nil {
		tr.t.Fatalf("portolan offload: %v: %s", err, out)
	}
	var list []struct{ offload.Report }
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || len(list[0].Interfaces) != 1 {
		tr.t.Fatalf("%v: %s", err, out)
	}
	r, i := list[0].Report, list[0].Interfaces[0]
	if r.Datapath != offload.NetdevDatapath || r.Window == nil || r.Window.Seconds < 1 || r.Reading.Flows == 0 || r.Reading.Unread > 0 || !r.Switch.HWOffload {
		tr.t.Errorf("%+v, %+v, %+v", r.Switch, r.Reading, r.Window)
	}
	if i.Pod != "default/web" || i.Device.Kind != offload.Veth || i.Interface != "eth0" {
		tr.t.Errorf("%+v", i)
	}
	var codes []offload.Code
	for _, c := range i.Reasons {
		codes = append(codes, c.Code)
	}
	if fmt.Sprint(codes) != "[no-device userspace-datapath]" && fmt.Sprint(codes) != "[userspace-datapath no-device]" {
		tr.t.Errorf("reasons %v", codes)
	}
	if i.From.Hardware.Flows != 0 || i.From.TC.Flows != 0 || i.From.Userspace.Flows == 0 {
		tr.t.Errorf("flows %+v", i.From)
	}
	text, err := tr.run("portolan", "offload", "default/web")
	if err != nil || !strings.Contains(text, "veth") || !strings.Contains(text, "userspace-datapath: Open vSwitch moves packets itself") {
		tr.t.Errorf("%v: %s", err, text)
	}
	tr.t.Logf("portolan offload default/web:\n%s", text)
	pod, err := tr.run("portolan", "pod", "default/web")
	if err != nil || !strings.Contains(pod, "moved eth0: in software") {
		tr.t.Errorf("%v: %s", err, pod)
	}
}

// within runs fn in a namespace, on a thread that ends with it.
func (tr tree) within(name string, fn func() error) {
	tr.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread is in the namespace
		ns, err := netns.GetFromPath(filepath.Join(tr.root, "run/netns", name))
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		tr.t.Fatalf("in %s: %v", name, err)
	}
}

// dontFragment sends a packet with the "don't fragment" bit.
func dontFragment(conn *net.UDPConn, payload []byte) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = alwaysDiscover(int(fd)) }); err != nil || set != nil {
		return errors.Join(err, set)
	}
	_, err = conn.Write(payload)
	return err
}

// alwaysDiscover has the kernel discover path MTUs for a socket.
func alwaysDiscover(fd int) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
}
