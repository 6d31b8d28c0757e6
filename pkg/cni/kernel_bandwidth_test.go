//go:build kernel

package cni_test

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/compile/pod"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// limitedPod is a pod on the default network and on shop/net0, with limits on both.
func limitedPod() *intent.Pod {
	return &intent.Pod{Namespace: "shop", Name: "a", UID: "uid-a", Node: "ptt",
		Notes: &intent.Notes{Bandwidth: intent.Bandwidth{IngressRate: 8e6, EgressRate: 4e6}},
		Attachments: []intent.Attachment{
			{Network: "default", MAC: "0a:58:0a:f4:01:03", Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.1.3/24")}},
			{Network: "shop/net0", MAC: "0a:58:0a:14:00:03", Addresses: []netip.Prefix{netip.MustParsePrefix("10.20.0.3/24")},
				Bandwidth: &intent.Bandwidth{IngressRate: 6e6, EgressRate: 3e6, EgressBurst: 5e5}},
		}}
}

// limits are the QoS rows that the compiler makes of a pod.
func limits(t *testing.T, p *intent.Pod) []rows.Row {
	t.Helper()
	s := intent.NewStore()
	for _, o := range []intent.Object{
		&intent.Cluster{Zone: "ptt"}, &intent.Node{Name: "ptt", Zone: "ptt", ID: 2}, &intent.Presence{Network: "net0", Node: "ptt"}, p,
		&intent.Network{Name: "net0", ID: 1, Topology: intent.Layer2, Definitions: []string{"shop/net0"},
			Subnets: []intent.NetworkSubnet{{Prefix: netip.MustParsePrefix("10.20.0.0/24")}}},
	} {
		s.Put(o)
	}
	var out []rows.Row
	for _, r := range pod.Compile(intent.NewView(s), "shop/a").Rows {
		if r.Table == "NB:QoS" {
			out = append(out, r)
		}
	}
	return out
}

// TestKernelBandwidth sends twice what is allowed into and out of a pod, on the default
// network and on another, and counts what arrives: the limit, to 10 %.
func TestKernelBandwidth(t *testing.T) {
	nbctl := startOVN(t)
	list := limits(t, limitedPod())
	if len(list) != 4 {
		t.Fatalf("the compiler makes %v", list)
	}
	for _, r := range list {
		args := []string{"--", "--id=@q", "create", "QoS"}
		for _, c := range r.Columns {
			if c.Name == "bandwidth" {
				for _, p := range c.Value {
					args = append(args, "bandwidth:"+p.Key.String()+"="+p.Value.String())
				}
				continue
			}
			args = append(args, c.Name+"="+rows.FormatValue(c.Value))
		}
		nbctl(append(args, "--", "add", "Logical_Switch", "ptt", "qos_rules", "@q")...)
	}
	pods := []cni.Pod{{Namespace: "shop", Name: "a", UID: "uid-a", Selection: "net0"}, {Namespace: "shop", Name: "b", UID: "uid-b", Selection: "net0"}}
	s := startServer(t, serverConfig{Socket: filepath.Join(t.TempDir(), "cni.sock"), Pods: pods, Plugins: referencePlugins,
		Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	var spaces []string
	for i, p := range pods {
		last := fmt.Sprint(3 + i)
		for key, at := range map[string]string{"default": "0a:58:0a:f4:01:0" + last + " 10.244.1." + last, "shop/net0": "0a:58:0a:14:00:0" + last + " 10.20.0." + last} {
			port := cni.Port{Pod: p, Key: key}.LogicalPort()
			nbctl("lsp-add", "ptt", port, "--", "lsp-set-addresses", port, at, "--", "lsp-set-options", port, "requested-chassis=ptt", "iface-id-ver="+p.UID)
		}
		spaces = append(spaces, sandbox(t, "bw"+p.Name))
		c := podCall(wire.Add, p, spaces[i])
		c.Config = nativeCall(wire.Add, "", "").Config
		s.succeed(c)
	}
	for _, c := range []struct {
		from, to int
		address  string
		rate     float64
	}{{1, 0, "10.244.1.3:9", 8e6}, {0, 1, "10.244.1.4:9", 4e6}, {1, 0, "10.20.0.3:9", 6e6}, {0, 1, "10.20.0.4:9", 3e6}} {
		got := arrives(t, spaces[c.from], spaces[c.to], c.address, 2*c.rate)
		for again := 0; again < 3 && got < 0.9*c.rate; again++ { // a busy machine moves less than it may, never more
			t.Logf("%s: %.2f Mbit/s of %.0f allowed: measured again", c.address, got/1e6, c.rate/1e6)
			got = arrives(t, spaces[c.from], spaces[c.to], c.address, 2*c.rate)
		}
		t.Logf("%s: %.2f Mbit/s of %.0f allowed, %.0f sent", c.address, got/1e6, c.rate/1e6, 2*c.rate/1e6)
		if got < 0.9*c.rate || got > 1.1*c.rate {
			t.Errorf("%s: %.2f Mbit/s arrive, the limit is %.2f", c.address, got/1e6, c.rate/1e6)
		}
	}
}

// arrives sends datagrams at a rate for 4 s, and returns the rate at which they arrive in
// the last three, in bits of Ethernet frames: what is before is the burst's.
func arrives(t *testing.T, from, to, address string, rate float64) float64 {
	t.Helper()
	const payload, frame, burst, end = 1200, 1242, time.Second, 4 * time.Second
	var in net.PacketConn
	var out net.Conn
	var err error
	inside(t, to, func() { in, err = net.ListenPacket("udp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	inside(t, from, func() { out, err = net.Dial("udp", address) })
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	began := time.Now()
	go func() { // ends with the time
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		sent := 0.0
		for now := range pace.C {
			if now.Sub(began) > end {
				return
			}
			for sent < rate*now.Sub(began).Seconds() {
				_, _ = out.Write(make([]byte, payload))
				sent += 8 * frame
			}
		}
	}()
	_ = in.SetReadDeadline(began.Add(end))
	bits := 0.0
	for buffer := make([]byte, 2000); ; {
		if _, _, err := in.ReadFrom(buffer); err != nil {
			return bits / (end - burst).Seconds()
		}
		if time.Since(began) > burst {
			bits += 8 * frame
		}
	}
}
