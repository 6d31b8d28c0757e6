package rig

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"
)

// TestParseTunneled reads a ping's frame in a tunnel with one option, as OVN sends it.
func TestParseTunneled(t *testing.T) {
	const (
		outer  = "020000000002" + "020000000001" + "0800" + "45000082000000004011" + "0000" + "ac1f0002" + "ac1f0003"
		udp    = "c000" + "17c1" + "006e" + "0000"
		header = "0240655800000100" + "0102800100010002" // two words of options
		inner  = "020000000012" + "020000000011" + "0800" + "45000054000000004001" + "0000" + "0a010001" + "0a010041"
	)
	frame := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	addr := netip.MustParseAddr
	want := tunneled{addr("172.31.0.2"), addr("172.31.0.3"), addr("10.1.0.1"), addr("10.1.0.65")}
	if got, ok := parseTunneled(frame(outer + udp + header + inner)); !ok || got != want {
		t.Errorf("read %+v, %v", got, ok)
	}
	for name, s := range map[string]string{
		"short": outer + udp + header, "another port": outer + "c00017c2006e0000" + header + inner, "no tunnel": outer, "nothing": "",
	} {
		if got, ok := parseTunneled(frame(s)); ok {
			t.Errorf("%s: read %+v", name, got)
		}
	}
}

// TestTally counts what is lost, and the longest gap.
func TestTally(t *testing.T) {
	c := &Count{every: 20e6, back: map[uint64]bool{0: true, 3: true, 5: true}}
	for n := range 6 {
		c.sent = append(c.sent, epoch.Add(c.every*time.Duration(n)))
	}
	if got := c.tally().String(); got != "3 of 6 lost, the longest gap 40 ms" {
		t.Error(got)
	}
}

var epoch = time.Unix(0, 0)
