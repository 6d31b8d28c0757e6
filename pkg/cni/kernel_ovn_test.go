//go:build kernel

package cni_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// startOVN starts OVN's own daemons beside the OVS that is there, with one switch.
func startOVN(t *testing.T) (nbctl func(args ...string)) {
	t.Helper()
	dir := t.TempDir()
	ds := &daemons{dir: dir}
	t.Cleanup(ds.stop)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, db := range []string{"nb", "sb"} {
		file := filepath.Join(dir, db+".db")
		if out, err := ovsdbtest.Command("ovsdb-tool", "create", file, ovsdbtest.Schema("ovn-"+db)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		must(ds.start("ovsdb-server", file, "--remote=punix:"+filepath.Join(dir, db+".sock")))
	}
	nb, sb := "unix:"+filepath.Join(dir, "nb.sock"), "unix:"+filepath.Join(dir, "sb.sock")
	nbctl = func(args ...string) {
		t.Helper()
		if out, err := ovsdbtest.Command("ovn-nbctl", append([]string{"--db=" + nb, "--timeout=20"}, args...)...).CombinedOutput(); err != nil {
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, l := range logs {
				b, _ := os.ReadFile(l)
				t.Logf("%s:\n%s", filepath.Base(l), b[max(0, len(b)-2000):])
			}
			t.Fatalf("ovn-nbctl %v: %v: %s", args, err, out)
		}
	}
	must(ds.start("ovn-northd", "--ovnnb-db="+nb, "--ovnsb-db="+sb))
	_, err := vsctl("set", "open", ".", "external_ids:system-id=ptt", "external_ids:hostname=ptt", "external_ids:ovn-remote="+sb,
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1", "external_ids:ovn-bridge-datapath-type=netdev",
		"--", "set", "interface", bridge, "external_ids:"+markOVN+"=true")
	must(err)
	t.Cleanup(func() {
		_, _ = vsctl("clear", "open", ".", "external_ids", "--", "remove", "interface", bridge, "external_ids", markOVN)
	})
	// ovn-controller 25.03.0 ends by SIGSEGV when the southbound database has no
	// SB_Global row yet: northd first.
	nbctl("--wait=sb", "ls-add", "ptt")
	must(ds.start("ovn-controller", database()))
	nbctl("--wait=hv", "sync")
	return nbctl
}

// TestKernelOVN: a real ovn-controller binds what the CNI server makes, and two
// pods exchange data over it; also after one's sandbox has been made anew.
func TestKernelOVN(t *testing.T) {
	nbctl := startOVN(t)
	pods := []cni.Pod{{Namespace: "shop", Name: "a", UID: "uid-a"}, {Namespace: "shop", Name: "b", UID: "uid-b"}}
	s := startServer(t, serverConfig{Socket: filepath.Join(t.TempDir(), "cni.sock"), Pods: pods,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}})
	var spaces []string
	for i, p := range pods {
		n := i + 3
		nbctl("lsp-add", "ptt", p.LogicalPort(), "--", "lsp-set-addresses", p.LogicalPort(), fmt.Sprintf("0a:58:0a:f4:01:%02x 10.244.1.%d fd00:1::%x", n, n, n),
			"--", "lsp-set-options", p.LogicalPort(), "requested-chassis=ptt", "iface-id-ver="+p.UID)
		spaces = append(spaces, sandbox(t, "ovn"+p.Name))
		began := time.Now()
		s.succeed(podCall(wire.Add, p, spaces[i]))
		t.Logf("ADD, nothing prepared, real OVN: %s", time.Since(began))
	}
	exchange(t, spaces[0], spaces[1], "10.244.1.4:7")
	exchange(t, spaces[0], spaces[1], "[fd00:1::4]:7")
	again := sandbox(t, "again")
	began := time.Now()
	s.succeed(podCall(wire.Add, pods[1], again))
	t.Logf("ADD of a second sandbox, real OVN: %s", time.Since(began))
	exchange(t, spaces[0], again, "10.244.1.4:7")
	for i, ns := range []string{spaces[0], again} {
		s.succeed(podCall(wire.Del, pods[i], ns))
		s.must("gone " + pods[i].UID)
	}
	if got := s.left(); got != clean {
		t.Error(got)
	}
}

func podCall(command string, p cni.Pod, netns string) *wire.Call {
	c := kernelCall(command, filepath.Base(netns), netns)
	c.Args = strings.NewReplacer("=web", "="+p.Name, "uid-web", p.UID).Replace(c.Args)
	return c
}

// exchange sends 4 MiB from one pod to another, which sends them back.
func exchange(t *testing.T, from, to, address string) {
	t.Helper()
	var l net.Listener
	var conn net.Conn
	var err error
	inside(t, to, func() { l, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	d := net.Dialer{Timeout: 5 * time.Second}
	inside(t, from, func() { conn, err = d.Dial("tcp", address) })
	if err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	sent := bytes.Repeat([]byte("portolan"), 1<<19)
	began := time.Now()
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%s: %d bytes of %d came back: %v", address, len(got), len(sent), err)
	}
	t.Logf("%s: 2 × 4 MiB in %s", address, time.Since(began).Round(time.Millisecond))
}

// inside runs f on a thread that is in a network namespace; sockets made there
// stay there.
func inside(t *testing.T, path string, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	f()
	if err := netns.Set(home); err != nil {
		fmt.Fprintln(os.Stderr, err) // this thread is of no use to anybody
		os.Exit(1)
	}
}
