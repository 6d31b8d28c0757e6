package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/sriov"
)

func TestFramesOfTheFlowAreCounted(t *testing.T) {
	a, b, c := netip.MustParseAddr("198.18.1.3"), netip.MustParseAddr("198.18.1.4"), netip.MustParseAddr("198.18.1.5")
	frame := func(kind uint16, from, to netip.Addr) []byte {
		f := make([]byte, 60)
		binary.BigEndian.PutUint16(f[12:], kind)
		copy(f[26:], from.AsSlice())
		copy(f[30:], to.AsSlice())
		return f
	}
	for what, tt := range map[string]struct {
		frame []byte
		want  bool
	}{
		"there":     {frame(0x0800, a, b), true},
		"back":      {frame(0x0800, b, a), true},
		"to others": {frame(0x0800, a, c), false},
		"ARP":       {frame(0x0806, a, b), false},
		"cut short": {frame(0x0800, a, b)[:33], false},
	} {
		if got := between(tt.frame, a, b); got != tt.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestTableAndExitCode(t *testing.T) {
	var table table
	table.flows([]offload.InterfaceReport{
		{Attached: offload.Attached{Pod: "default/east"}, Verdict: offload.InHardware, TC: &offload.TCCount{Filters: 2, InHardware: 2, HardwarePackets: 9}},
		{Attached: offload.Attached{Pod: "default/west", Port: "eth3"}, Verdict: offload.InSoftware, Reasons: []offload.Counted{{Reason: offload.Reason{Code: offload.FeatureOff}}}},
	})
	var out strings.Builder
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ok      offloaded:yes of default/east", "FAILED  offloaded:yes of default/west", "why not: feature-off", "no filter at eth3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if !table.failed() || exit(fmt.Errorf("x: %w", errTable)) != 1 || exit(nil) != 0 || exit(errors.New("no NIC")) != 2 {
		t.Error("exit codes")
	}
}

func TestPoolChoosesTheNIC(t *testing.T) {
	for want, pf := range map[string]sriov.PF{
		`rootDevices: ["0000:03:00.0"]}, vfs: 2, mode: switchdev`: {Bus: "pci", ID: "0000:03:00.0", Netdev: "ens1f0"},
		`pfNames: ["eth1"]}, vfs: 2, mode: switchdev`:             {Bus: "netdevsim", ID: "netdevsim1", Netdev: "eth1"},
	} {
		if got := poolFile(pf, 2, sriov.Switchdev); !strings.Contains(got, want) {
			t.Errorf("%s", got)
		}
	}
}
