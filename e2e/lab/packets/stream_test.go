package packets

import (
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestStreamCountsWhatArrives(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("entering a network namespace, be it one's own, needs root")
	}
	here := Place{Name: "here", Path: "/proc/self/ns/net", Addr: netip.MustParseAddr("127.0.0.1")}
	rate, err := Stream(here, here, 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if rate < 1e6 {
		t.Errorf("%.0f bytes/s over loopback", rate)
	}
}

func TestStreamToNowhereFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("entering a network namespace, be it one's own, needs root")
	}
	here := Place{Name: "here", Path: "/proc/self/ns/net", Addr: netip.MustParseAddr("127.0.0.1")}
	nowhere := Place{Name: "nowhere", Path: "/proc/self/ns/net", Addr: netip.MustParseAddr("192.0.2.1")}
	if rate, err := Stream(here, nowhere, 100*time.Millisecond); err == nil {
		t.Errorf("a stream to an address that nobody has: %.0f bytes/s", rate)
	}
	gone := Place{Name: "gone", Path: "/run/netns/no-such-namespace", Addr: here.Addr}
	if rate, err := Stream(gone, here, 100*time.Millisecond); err == nil {
		t.Errorf("a stream from a namespace that does not exist: %.0f bytes/s", rate)
	}
}
