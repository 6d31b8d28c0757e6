package sriov_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/sriov"
)

// message is a uevent as the kernel sends it.
func message(words ...string) []byte { return []byte(strings.Join(words, "\x00") + "\x00") }

func TestParseUevent(t *testing.T) {
	const path = "/devices/pci0000:00/0000:00:02.0/0000:01:10.0"
	vf := func(action string, more ...string) []byte {
		return message(append([]string{action + "@" + path, "ACTION=" + action, "DEVPATH=" + path, "SUBSYSTEM=pci", "PCI_CLASS=20000", "PCI_ID=8086:10CA", "PCI_SLOT_NAME=0000:01:10.0"}, more...)...)
	}
	for name, c := range map[string]struct {
		message  []byte
		ok       bool
		function bool
		driver   string
	}{
		"a VF is made":        {vf("add"), true, true, ""},
		"a VF is removed":     {vf("remove"), true, true, ""},
		"a VF is bound":       {vf("bind", "DRIVER=igbvf"), true, true, "igbvf"},
		"a VF is unbound":     {vf("unbind"), true, true, ""},
		"a VF says something": {vf("change"), true, false, ""},
		"a disk is bound":     {message("bind@/devices/pci0000:00/0000:00:03.0", "SUBSYSTEM=pci", "PCI_CLASS=10802", "DRIVER=nvme"), true, false, "nvme"},
		"class 0x00":          {message("bind@/devices/x", "SUBSYSTEM=pci", "PCI_CLASS=200"), true, false, ""},
		"an SF is bound":      {message("bind@/devices/pci0000:00/0000:03:00.0/mlx5_core.sf.2", "SUBSYSTEM=auxiliary", "DRIVER=mlx5_core.sf"), true, true, "mlx5_core.sf"},
		"a network device":    {message("add@/devices/virtual/net/lo", "SUBSYSTEM=net", "INTERFACE=lo"), true, false, ""},
		"a queue":             {message("add@/devices/virtual/net/lo/queues/rx-0", "SUBSYSTEM=queues"), true, false, ""},
		"udev's":              {message("libudev", "\xfe\xed\xca\xfe"), false, false, ""},
		"nothing":             {nil, false, false, ""},
		"no path":             {message("add@x"), false, false, ""},
		"no action":           {message("@/x"), false, false, ""},
		"words without value": {message("bind@/x", "SUBSYSTEM", "=y", "DRIVER=", "SUBSYSTEM=auxiliary"), true, true, ""},
	} {
		u, ok := sriov.ParseUevent(c.message)
		if ok != c.ok || u.OfFunction() != c.function || u.Values["DRIVER"] != c.driver {
			t.Errorf("%s: %+v, %t, of a function: %t", name, u, ok, u.OfFunction())
		}
	}
	u, _ := sriov.ParseUevent(vf("unbind"))
	want := sriov.Uevent{Action: "unbind", Path: path, Subsystem: "pci", Values: map[string]string{
		"ACTION": "unbind", "DEVPATH": path, "SUBSYSTEM": "pci", "PCI_CLASS": "20000", "PCI_ID": "8086:10CA", "PCI_SLOT_NAME": "0000:01:10.0"}}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00SUBSYSTEM=pci\x00PCI_CLASS=20000\x00"))
	f.Add([]byte("libudev\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if u, ok := sriov.ParseUevent(text); ok && (u.Action == "" || u.Path == "" || u.Values == nil) {
			t.Errorf("%q gives %+v", text, u)
		}
	})
}
