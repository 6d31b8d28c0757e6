//go:build kernel

package cni_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/safchain/ethtool"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// in runs a command in a sandbox and returns what it prints.
func in(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + path, "--"}, args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestKernelAdd(t *testing.T) {
	s := testServer(t)
	ns := sandbox(t, "add")
	got := s.succeed(kernelCall(wire.Add, "add", ns))
	if again := s.succeed(kernelCall(wire.Add, "add", ns)); again != got {
		t.Errorf("the second ADD says %s, the first %s", again, got)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"ip", "addr", "show", "eth0"}, []string{"10.244.1.3/24", "fd00:1::3/64", "mtu 1400", "0a:58:0a:f4:01:03", "nodad", "LOWER_UP"}},
		{[]string{"ip", "route"}, []string{"default via 10.244.1.1 dev eth0"}},
		{[]string{"ip", "-6", "route"}, []string{"default via fd00:1::1 dev eth0"}},
		{[]string{"ip", "link", "show", "lo"}, []string{"UP"}},
		{[]string{"sysctl", "net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth0.autoconf", "net.ipv6.conf.eth0.accept_dad", "net.ipv4.conf.eth0.arp_notify"},
			[]string{"accept_ra = 0", "autoconf = 0", "accept_dad = 0", "arp_notify = 1"}},
		{[]string{"ethtool", "-k", "eth0"}, []string{"tx-checksumming: off"}},
	} {
		out := in(t, ns, c.args...)
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%v: %q is not in:\n%s", c.args, w, out)
			}
		}
	}
	s.succeed(kernelCall(wire.Check, "add", ns))
	record, err := vsctl("--bare", "--columns=name,external_ids", "find", "interface", "external_ids:sandbox=add")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"iface-id=shop_web", "iface-id-ver=uid-web", "attached_mac=0a:58:0a:f4:01:03", "ip_addresses=10.244.1.3/24 fd00:1::3/64",
		"pod-if-name=eth0", "portolan/owner=attachment/uid-web/eth0", "k8s.ovn.org/network=default", "k8s.ovn.org/nad=default"} {
		if !strings.Contains(record, w) && !strings.Contains(strings.ReplaceAll(record, `"`, ""), w) {
			t.Errorf("%q is not in the record %s", w, record)
		}
	}
	hostEnd(t, strings.Fields(record)[0])
	in(t, ns, "ip", "addr", "del", "10.244.1.3/24", "dev", "eth0")
	if reply, err := s.call(kernelCall(wire.Check, "add", ns)); err != nil || reply.Error == nil || !strings.Contains(reply.Error.Msg, "no address 10.244.1.3/24") {
		t.Errorf("CHECK of a pod without its address: %v %+v", err, reply)
	}
	s.succeed(kernelCall(wire.Del, "add", ns))
	s.succeed(kernelCall(wire.Del, "add", ""))
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

// hostEnd checks the node's end of a pair.
func hostEnd(t *testing.T, name string) {
	t.Helper()
	for file, want := range map[string]string{
		"ipv4/conf/" + name + "/arp_ignore": "8", "ipv6/conf/" + name + "/disable_ipv6": "1", "ipv6/conf/" + name + "/accept_ra": "0",
	} {
		if b, err := os.ReadFile("/proc/sys/net/" + file); err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%s is %s, want %s (%v)", file, b, want, err)
		}
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if f, err := e.Features(name); err != nil || f["tx-checksum-ip-generic"] {
		t.Errorf("%s offloads checksums: %v", name, err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil || link.Attrs().Alias != "portolan shop/web" {
		t.Errorf("%s: alias of %+v, %v", name, link, err)
	}
}

func TestKernelSandboxRecreated(t *testing.T) {
	s := testServer(t)
	old, young := sandbox(t, "old"), sandbox(t, "new")
	s.must("bound shop/web")
	first, second := s.succeed(kernelCall(wire.Add, "old", old)), s.succeed(kernelCall(wire.Add, "new", young))
	if !strings.Contains(first, "10.244.1.3/24") || !strings.Contains(second, "10.244.1.3/24") {
		t.Errorf("the address changed: %s, %s", first, second)
	}
	s.succeed(kernelCall(wire.Del, "old", old))
	s.succeed(kernelCall(wire.Check, "new", young))
	if got := s.left(); got != "veths=1 ports=1 owners [uid-web]" {
		t.Error(got)
	}
	// The namespace goes before DEL: a node that was reset, or a runtime in a hurry.
	if out, err := exec.Command("ip", "netns", "del", "ptt-new").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.succeed(kernelCall(wire.Del, "new", young))
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

func TestKernelAddDelOverlap(t *testing.T) {
	s := testServer(t)
	ns := sandbox(t, "overlap")
	replies := make(chan error, 12)
	for i := range cap(replies) {
		command := wire.Add
		if i%2 == 1 {
			command = wire.Del
		}
		go func() {
			reply, err := s.call(kernelCall(command, "overlap", ns))
			if err == nil && reply.Error != nil {
				err = reply.Error
			}
			replies <- err
		}()
	}
	for range cap(replies) {
		if err := <-replies; err != nil {
			t.Error(err)
		}
	}
	s.succeed(kernelCall(wire.Del, "overlap", ns))
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

// TestKernelKilled kills the server at every step, then does what a runtime and
// the API server do next, and looks for anything left.
func TestKernelKilled(t *testing.T) {
	steps := map[string][]string{
		"PREPARE": {cni.StageAllocate},
		wire.Add: {cni.StageFindPod, cni.StageAllocate, cni.StageCreateVeth, cni.StageCreatePort, cni.StageConfigure,
			cni.StageInstalled, cni.StageAnnounce, cni.StageAnswer},
		wire.Del: {cni.StageWaitTurn, cni.StageRemoveVeth, cni.StageRemovePort, cni.StageAnswer},
	}
	for _, command := range []string{"PREPARE", wire.Add, wire.Del} {
		for _, stage := range steps[command] {
			t.Run(command+"/"+stage, func(t *testing.T) { killed(t, command, stage) })
		}
	}
}

func killed(t *testing.T, command, stage string) {
	s := testServer(t)
	first, second := sandbox(t, "k1"), sandbox(t, "k2")
	if command == wire.Del {
		s.succeed(kernelCall(wire.Add, "k1", first))
	}
	s = s.again(command + "/" + stage)
	if command == "PREPARE" {
		if answer, alive := s.ask("bound shop/web"); alive {
			t.Fatalf("it survived: %s", answer)
		}
	} else if reply, err := s.call(kernelCall(command, "k1", first)); err == nil {
		t.Fatalf("it survived: %+v", reply)
	}
	s = s.again("")
	s.succeed(kernelCall(wire.Del, "k1", first)) // the runtime undoes what failed, and tries again
	s.succeed(kernelCall(wire.Add, "k2", second))
	s.succeed(kernelCall(wire.Check, "k2", second))
	if got := s.left(); got != "veths=1 ports=1 owners [uid-web]" {
		t.Error(got)
	}
	s.succeed(kernelCall(wire.Del, "k2", second))
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

// TestKernelRestartSameSandbox: a runtime that repeats the ADD of the same sandbox
// after a crash in the middle gets a whole interface.
func TestKernelRestartSameSandbox(t *testing.T) {
	for _, stage := range []string{cni.StageCreatePort, cni.StageConfigure, cni.StageInstalled, cni.StageAnnounce, cni.StageAnswer} {
		t.Run(stage, func(t *testing.T) {
			s := testServer(t)
			ns := sandbox(t, "same")
			s = s.again(wire.Add + "/" + stage)
			if _, err := s.call(kernelCall(wire.Add, "same", ns)); err == nil {
				t.Fatal("it survived")
			}
			s = s.again("")
			s.succeed(kernelCall(wire.Add, "same", ns))
			s.succeed(kernelCall(wire.Check, "same", ns))
			s.succeed(kernelCall(wire.Del, "same", ns))
			s.must("gone uid-web")
			if got := s.left(); got != clean {
				t.Error(got)
			}
		})
	}
}

func TestKernelRollback(t *testing.T) {
	s := testServer(t)
	ns := sandbox(t, "rollback")
	in(t, ns, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other") // the name is taken
	reply, err := s.call(kernelCall(wire.Add, "rb", ns))
	if err != nil || reply.Error == nil || !strings.Contains(reply.Error.Msg, "stage create-veth") || !strings.Contains(reply.Error.Msg, "an interface eth0 already") {
		t.Fatalf("%v %+v", err, reply)
	}
	if got := s.left(); got != "veths=0 ports=0 owners [uid-web]" {
		t.Error(got)
	}
	reply, err = s.call(kernelCall(wire.Add, "rb", "/run/netns/ptt-none"))
	if err != nil || reply.Error == nil || reply.Error.Code != wire.CodeNetns {
		t.Fatalf("%v %+v", err, reply)
	}
	gone := filepath.Join(t.TempDir(), "gone") // as a namespace that has been unmounted
	if err := os.WriteFile(gone, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if reply, err = s.call(kernelCall(wire.Add, "rb", gone)); err != nil || reply.Error == nil || reply.Error.Code != wire.CodeNetns {
		t.Fatalf("%v %+v", err, reply)
	}
	if got := s.left(); got != "veths=0 ports=0 owners [uid-web]" {
		t.Error(got)
	}
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

// TestKernelRecover: leftovers of earlier runs go, what is in use stays.
func TestKernelRecover(t *testing.T) {
	s := testServer(t)
	ns := sandbox(t, "recover")
	s.succeed(kernelCall(wire.Add, "recover", ns))
	if out, err := exec.Command("ip", "link", "add", "pffffffffffff", "type", "veth", "peer", "name", "other").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := vsctl("add-port", bridge, "pdddddddddddd", "--", "set", "interface", "pdddddddddddd",
		"external_ids:portolan/owner=attachment/uid-x/eth0", "external_ids:iface-id-ver=uid-x", "external_ids:ip_addresses=10.244.1.9/24"); err != nil {
		t.Fatal(err)
	}
	// A pair of a record that names no sandbox.
	if out, err := exec.Command("ip", "link", "add", "pdddddddddddd", "type", "veth", "peer", "name", "another").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s = s.again("")
	if got := s.left(); got != "veths=1 ports=1 owners [uid-web]" {
		t.Error(got)
	}
	s.succeed(kernelCall(wire.Check, "recover", ns))
	s.succeed(kernelCall(wire.Del, "recover", ns))
}

// TestKernelAnnounce listens while the pod's end comes up.
func TestKernelAnnounce(t *testing.T) {
	s := testServer(t)
	ns := sandbox(t, "announce")
	const all = 0x0300 // ETH_P_ALL in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3})
	s.succeed(kernelCall(wire.Add, "announce", ns))
	var arp, na bool
	buf := make([]byte, 2048)
	for !arp || !na {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatalf("ARP seen: %t, neighbour advertisement seen: %t: %v", arp, na, err)
		}
		f := buf[:n]
		arp = arp || n >= 42 && f[12] == 8 && f[13] == 6 && string(f[28:32]) == "\x0a\xf4\x01\x03" && string(f[38:42]) == "\x0a\xf4\x01\x03"
		na = na || n >= 86 && f[12] == 0x86 && f[54] == 136 && f[77] == 3
	}
	s.succeed(kernelCall(wire.Del, "announce", ns))
}

// TestKernelConcealed: a pod that speaks to the MAC of its veth's other end is not
// answered by the node; without the rule it would be.
func TestKernelConcealed(t *testing.T) {
	s := testServer(t)
	ns := sandbox(t, "conceal")
	s.succeed(kernelCall(wire.Add, "conceal", ns))
	name, err := vsctl("list-ports", bridge)
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{
		"ip link set lo up", "ip addr replace 192.0.2.1/32 dev lo", "ip route replace 10.244.1.3/32 dev " + name,
		"ip neigh replace 10.244.1.3 lladdr 0a:58:0a:f4:01:03 dev " + name,
	} {
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c, err, out)
		}
	}
	in(t, ns, "ip", "route", "add", "192.0.2.1/32", "dev", "eth0")
	in(t, ns, "ip", "neigh", "add", "192.0.2.1", "lladdr", link.Attrs().HardwareAddr.String(), "dev", "eth0")
	if reaches(t, ns) {
		t.Error("the node's kernel answers a pod through the veth")
	}
	if out, err := exec.Command("nft", "delete", "table", "inet", "portolan").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !reaches(t, ns) {
		t.Error("the control failed: without the rule the node's kernel should answer")
	}
	s.succeed(kernelCall(wire.Del, "conceal", ns))
}

// reaches sends an echo request and waits for its answer.
func reaches(t *testing.T, path string) bool {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	return exec.Command("nsenter", "--net="+path, "--", "sh", "-c", "exec 3<>/dev/tcp/192.0.2.1/9").Run() == nil || refused(path)
}

// refused reports whether a TCP connection is refused, which is an answer too.
func refused(path string) bool {
	c := exec.Command("nsenter", "--net="+path, "--", "timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/9")
	out, _ := c.CombinedOutput()
	return strings.Contains(string(out), "refused")
}

// TestKernelSlowOVN: an ADD that gives up waiting for OVN leaves an empty sandbox.
func TestKernelSlowOVN(t *testing.T) {
	if _, err := vsctl("set", "interface", bridge, "external_ids:"+markOVN+"=true"); err != nil { // the stand-in rests
		t.Fatal(err)
	}
	s := testServer(t)
	ns := sandbox(t, "slow")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := wire.Do(ctx, s.config.Socket, kernelCall(wire.Add, "slow", ns)); err == nil {
		t.Fatal("an ADD was answered without ovn-installed")
	}
	s.succeed(kernelCall(wire.Del, "slow", ns)) // waits until the ADD is undone
	if got := s.left(); got != "veths=0 ports=0 owners [uid-web]" {
		t.Error(got)
	}
	if out := in(t, ns, "ip", "-o", "link"); strings.Count(out, "\n") != 1 {
		t.Errorf("left in the sandbox: %s", out)
	}
	if _, err := vsctl("remove", "interface", bridge, "external_ids", markOVN); err != nil {
		t.Fatal(err)
	}
	s.succeed(kernelCall(wire.Add, "slow", ns))
	s.succeed(kernelCall(wire.Check, "slow", ns))
	s.succeed(kernelCall(wire.Del, "slow", ns))
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}
