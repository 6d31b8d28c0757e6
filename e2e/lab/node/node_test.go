package node

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestOnlyTheFirstProcessOfANodeIsItsInit(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tlab\nNSpid:\t4711\t1\n":        true,
		"Name:\tkubelet\nNSpid:\t4711\t23\n":   false,
		"Name:\tpause\nNSpid:\t4711\t99\t1\n":  false,
		"Name:\tunshare\nNSpid:\t4711\n":       false,
		"Name:\tlab\nNSpid:\t1\nNgid:\t1\t1\n": false,
		"":                                     false,
	} {
		if got := isNodeInit(status); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
}

func TestSpecSurvivesItsFile(t *testing.T) {
	want := Spec{Name: "ovn-worker", State: t.TempDir(), API: netip.MustParseAddrPort("[fc00::3]:6443"),
		IPs: []netip.Addr{netip.MustParseAddr("172.18.0.2")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	if err := want.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSpec(want.State)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, wrote %+v", got, want)
	}
}
