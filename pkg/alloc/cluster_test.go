package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestIDs(t *testing.T) {
	c := newClock()
	ids, err := NewIDs(1, 3, RestConfig{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	get := func(node string) int {
		t.Helper()
		id, err := ids.Allocate(node)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if err := ids.Reserve("b", 2); err != nil {
		t.Fatal(err)
	}
	if a, again, d := get("a"), get("a"), get("d"); a != 1 || again != 1 || d != 3 {
		t.Fatalf("a=%d again=%d d=%d", a, again, d)
	}
	ids.Release("b")
	_, err = ids.Allocate("e")
	var full *ExhaustedError
	if !errors.As(err, &full) || full.Retry != DefaultRest || full.Resting != 1 {
		t.Fatalf("an id was given out of its rest, or the error does not say when: %v", err)
	}
	c.t = c.t.Add(DefaultRest)
	if e := get("e"); e != 2 {
		t.Fatalf("after its rest: %d", e)
	}
	for node, id := range map[string]int{"x": 2, "y": 9, "e": 1} {
		if err := ids.Reserve(node, id); err == nil {
			t.Errorf("node %s reserved %d", node, id)
		}
	}
	if _, err := NewIDs(5, 1, RestConfig{}); err == nil {
		t.Error("an empty range was accepted")
	}
}

func TestSubnets(t *testing.T) {
	c := newClock()
	s, err := NewSubnets([]ClusterSubnet{
		{netip.MustParsePrefix("10.244.0.0/16"), 24}, {netip.MustParsePrefix("fd10::/48"), 64},
	}, RestConfig{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve("old", prefixes("10.244.0.0/24", "fd10::/64")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[10.244.1.0/24 fd10:0:0:1::/64]", "[10.244.1.0/24 fd10:0:0:1::/64]"} {
		got, err := s.Allocate("n1")
		if err != nil || fmt.Sprint(got) != want {
			t.Fatalf("n1: %v %v, want %s", got, err, want)
		}
	}
	for _, bad := range []string{"10.244.1.0/24", "10.244.7.0/25", "10.9.0.0/24"} {
		if err := s.Reserve("x", prefixes(bad)); err == nil {
			t.Errorf("%s reserved", bad)
		}
	}
	s.Release("old")
	if got, _ := s.Allocate("n2"); fmt.Sprint(got) != "[10.244.2.0/24 fd10:0:0:2::/64]" {
		t.Fatalf("n2 got %v while the first subnet rests", got)
	}
	c.t = c.t.Add(DefaultRest + time.Second)
	if got, _ := s.Allocate("n3"); fmt.Sprint(got) != "[10.244.0.0/24 fd10::/64]" {
		t.Fatalf("n3 got %v after the rest", got)
	}
}

func TestSubnetsExhausted(t *testing.T) {
	s, err := NewSubnets([]ClusterSubnet{
		{netip.MustParsePrefix("10.0.0.0/23"), 24}, {netip.MustParsePrefix("10.9.0.0/24"), 24},
	}, RestConfig{Now: newClock().now})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"[10.0.0.0/24]", "[10.0.1.0/24]", "[10.9.0.0/24]"} {
		if got, err := s.Allocate(fmt.Sprint(i)); err != nil || fmt.Sprint(got) != want {
			t.Fatalf("node %d: %v %v, want %s", i, got, err, want)
		}
	}
	_, err = s.Allocate("x")
	var full *ExhaustedError
	if !errors.As(err, &full) || full.Size != 3 || full.Used != 3 {
		t.Fatalf("exhausted: %v", err)
	}
}

func TestSubnetsRefuse(t *testing.T) {
	for _, cs := range [][]ClusterSubnet{
		nil, {{netip.MustParsePrefix("10.0.0.0/24"), 16}}, {{netip.MustParsePrefix("10.0.0.0/24"), 31}},
		{{netip.MustParsePrefix("fd00::/48"), 80}},
		{{netip.MustParsePrefix("10.0.0.0/16"), 24}, {netip.MustParsePrefix("10.0.4.0/22"), 24}},
	} {
		if _, err := NewSubnets(cs, RestConfig{}); err == nil {
			t.Errorf("%v accepted", cs)
		}
	}
}
