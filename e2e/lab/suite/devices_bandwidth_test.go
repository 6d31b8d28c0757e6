package suite

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// TestDevicesBandwidth sends twice what is allowed to and from a pod whose interface is a
// device, by pods of its node and of another, and counts what arrives: the limit, to 10 %.
func TestDevicesBandwidth(t *testing.T) {
	const in, out = 8e6, 4e6
	fresh(t)
	offering(t, 2, victim, other)
	apply(t, deviceNetworks(suiteResource))
	limits := fmt.Sprintf(`[{"name":"fast","bandwidth":{"ingressRate":%d,"egressRate":%d}}]`, int(in), int(out))
	apply(t, devicePod("limited", victim, limits, suiteResource, 1)+devicePod("near", victim, "fast", suiteResource, 1)+devicePod("far", other, "fast", suiteResource, 1))
	pods := attachedPods(t)
	own(t, pods)
	place := func(name string) packets.Place { return pods[name].with(pods[name].Interfaces[0]) }
	for _, c := range []struct {
		from, to string
		rate     float64
	}{{"far", "limited", in}, {"near", "limited", in}, {"limited", "far", out}, {"limited", "near", out}, {"near", "far", 0}} {
		for _, f := range bothFamilies {
			from, to := place(c.from).In(f), place(c.to).In(f)
			if err := inTime(20*time.Second, func() error { return answered(from, to) }); err != nil {
				t.Fatal(err)
			}
			if c.rate == 0 { // what has no limit is not held: this is no slow path
				if got := arrives(t, from, to, 2*in); got < 1.8*in {
					t.Errorf("%s, %s to %s: %.2f Mbit/s arrive of %.0f that nothing limits", f, c.from, c.to, got/1e6, 2*in/1e6)
				}
				continue
			}
			got := arrives(t, from, to, 2*c.rate)
			for again := 0; again < 3 && got < 0.9*c.rate; again++ { // a busy machine moves less than it may, never more
				t.Logf("%s, %s to %s: %.2f Mbit/s of %.0f allowed: measured again", f, c.from, c.to, got/1e6, c.rate/1e6)
				got = arrives(t, from, to, 2*c.rate)
			}
			t.Logf("%s, %s to %s: %.2f Mbit/s of %.0f allowed, %.0f sent", f, c.from, c.to, got/1e6, c.rate/1e6, 2*c.rate/1e6)
			if got < 0.9*c.rate || got > 1.1*c.rate {
				t.Errorf("%s, %s to %s: %.2f Mbit/s arrive, the limit is %.2f", f, c.from, c.to, got/1e6, c.rate/1e6)
			}
		}
	}
}

// arrives sends datagrams at a rate for 4 s, and returns the rate at which they arrive in
// the last three, in bits of Ethernet frames: what is before is the burst's.
func arrives(t *testing.T, from, to packets.Place, rate float64) float64 {
	t.Helper()
	const payload, burst, end = 1200, time.Second, 4 * time.Second
	frame := float64(payload + 8 + 20 + 14)
	if to.Addr.Is6() {
		frame += 20
	}
	var in net.PacketConn
	var out net.Conn
	err := to.Do(func() (err error) {
		in, err = net.ListenPacket("udp", netip.AddrPortFrom(to.Addr, port).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	err = from.Do(func() (err error) {
		out, err = net.Dial("udp", netip.AddrPortFrom(to.Addr, port).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	began, sent := time.Now(), make(chan struct{})
	go func() {
		defer close(sent)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		done := 0.0
		for now := range pace.C {
			if now.Sub(began) > end {
				return
			}
			for done < rate*now.Sub(began).Seconds() {
				_, _ = out.Write(make([]byte, payload)) // ICMP's answers to earlier ones say nothing here
				done += 8 * frame
			}
		}
	}()
	_ = in.SetReadDeadline(began.Add(end))
	bits := 0.0
	for buffer := make([]byte, 2000); ; {
		if _, _, err := in.ReadFrom(buffer); err != nil {
			<-sent
			return bits / (end - burst).Seconds()
		}
		if time.Since(began) > burst {
			bits += 8 * frame
		}
	}
}
