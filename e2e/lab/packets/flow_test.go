package packets

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"
)

func here(t *testing.T) Place {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("entering a network namespace, be it one's own, needs root")
	}
	return Place{Name: "here", Path: "/proc/self/ns/net", Addr: netip.MustParseAddr("127.0.0.1")}
}

func TestFlowOverLoopbackLosesNothing(t *testing.T) {
	f, err := StartFlow(here(t), here(t), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := f.Arrived(5 * time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if s := f.Stop(); s.Lost != 0 || s.Sent == 0 || s.Duplicated != 0 || s.Reordered != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
}

// TestFlowCounts gives the meter numbers that a real path is not sure to give:
// 1 and 2 are lost, 4 comes twice, 6 before 5, and 9 is the last sent and lost.
func TestFlowCounts(t *testing.T) {
	begin := time.Now()
	f := &Flow{highest: -1}
	for i := range 10 {
		f.sent = append(f.sent, begin.Add(time.Duration(i)*time.Millisecond))
	}
	for _, n := range []int{0, 3, 4, 4, 6, 5, 7, 8} {
		f.arrived(n)
	}
	s := f.count()
	if s.Sent != 10 || s.Lost != 3 || s.Duplicated != 1 || s.Reordered != 1 || s.Gap != 2*time.Millisecond {
		t.Errorf("%+v", s)
	}
	if len(s.Holes) != 2 || s.Holes[0].Count != 2 || s.Holes[1].Count != 1 || !s.Holes[0].At.Equal(f.sent[1]) {
		t.Errorf("holes %+v", s.Holes)
	}
}

func TestFlowToNobodyIsLost(t *testing.T) {
	f, err := StartFlow(here(t), here(t), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Arrived(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	_ = f.in.Close() // the receiver is gone; the kernel answers with port unreachable
	begin := time.Now()
	if err := f.Arrived(100 * time.Millisecond); err == nil {
		t.Errorf("something arrived after %v where nobody listens", begin)
	}
	if s := f.Stop(); s.Lost == 0 || s.Gap < 50*time.Millisecond {
		t.Errorf("%+v", s)
	}
}

func TestTalkIsChecked(t *testing.T) {
	talk, err := StartTalk(here(t), here(t))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(100 * time.Millisecond)
	<-deadline
	got := talk.Stop()
	if got.Err != nil || got.Bytes == 0 || got.Bytes%talkBlock != 0 {
		t.Errorf("%+v", got)
	}
}

func TestTalkSeesWhatIsSpoiled(t *testing.T) {
	listener, err := StartTalk(here(t), here(t))
	if err != nil {
		t.Fatal(err)
	}
	// A byte that the sender did not number shifts all that follow.
	if _, err := listener.out.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	<-time.After(50 * time.Millisecond)
	if got := listener.Stop(); !errors.Is(got.Err, ErrSpoiled) {
		t.Errorf("%+v", got)
	}
}

func TestOpenerCounts(t *testing.T) {
	place := here(t)
	s, err := Serve(place, 0)
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(s.tcp.Addr().String()).Port()
	to := netip.AddrPortFrom(place.Addr, port)
	o := StartOpening(place, to, 100)
	<-time.After(100 * time.Millisecond)
	if got := o.Stop(); got.Tried == 0 || got.Failed != 0 {
		t.Errorf("%v: %v", got, got.Err)
	}
	s.Close()
	o = StartOpening(place, to, 100)
	<-time.After(100 * time.Millisecond)
	if got := o.Stop(); got.Failed == 0 || got.Failed != got.Tried {
		t.Errorf("nobody listens, and %v", got)
	}
}
