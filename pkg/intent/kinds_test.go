package intent

import "testing"

// TestLimitsCompareByValue: two readings of one annotation are equal, though each has
// made limits of its own, and no limit is one thing however it is written.
func TestLimitsCompareByValue(t *testing.T) {
	if Limits(Bandwidth{}) != nil {
		t.Error("no limit is kept")
	}
	for _, c := range []struct {
		a, b *Bandwidth
		same bool
	}{
		{nil, nil, true},
		{nil, &Bandwidth{}, true},
		{Limits(Bandwidth{IngressRate: 1e6}), Limits(Bandwidth{IngressRate: 1e6}), true},
		{Limits(Bandwidth{IngressRate: 1e6}), Limits(Bandwidth{EgressRate: 1e6}), false},
		{nil, Limits(Bandwidth{EgressBurst: 1}), false},
	} {
		if got := (Attachment{Bandwidth: c.a}).Equal(Attachment{Bandwidth: c.b}); got != c.same {
			t.Errorf("attachments with %+v and %+v: equal %v", c.a.Value(), c.b.Value(), got)
		}
	}
}

// TestNotesCompareByValue: what a pod has in its Notes is as much part of it as what
// it has outside of them, but for Status.
func TestNotesCompareByValue(t *testing.T) {
	if (Notes{}).Keep() != nil || (Notes{Status: "[]"}).WithoutStatus().Keep() != nil {
		t.Error("empty notes are kept")
	}
	if n := (&Pod{Notes: Notes{Instead: "a/b"}.Keep()}).Noted(); n.Instead != "a/b" {
		t.Errorf("noted %+v", n)
	}
	for _, c := range []struct {
		a, b Notes
		same bool
	}{
		{Notes{}, Notes{}, true},
		{Notes{}, Notes{Status: "[]"}, true},
		{Notes{Selection: "a", Status: "[1]"}, Notes{Selection: "a", Status: "[2]"}, true},
		{Notes{}, Notes{Selection: "a"}, false},
		{Notes{Mirror: "1"}, Notes{Mirror: "2"}, false},
		{Notes{Instead: "a"}, Notes{Selection: "a"}, false},
		{Notes{Bandwidth: Bandwidth{IngressRate: 1e6}}, Notes{Bandwidth: Bandwidth{EgressRate: 1e6}}, false},
	} {
		if got := (&Pod{Notes: c.a.Keep()}).Equal(&Pod{Notes: c.b.Keep()}); got != c.same {
			t.Errorf("pods with %+v and %+v: equal %v", c.a, c.b, got)
		}
	}
}
