package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/inspect"
)

func TestPrintDevices(t *testing.T) {
	list := []nodeDevices{
		{Node: "w1", Devices: inspect.Devices{
			Pools: []inspect.DevicePool{
				{Name: "dry", Reason: "DryRun", Message: "1 steps would be done", Steps: []string{"ens2f0: make 8 VFs"}},
				{Name: "fast", Ready: true, Devices: 2, Well: 1, InUse: 1, Message: "1 of 2 devices are unwell"},
			},
			Devices: []inspect.NodeDevice{
				{PodDevice: inspect.PodDevice{ID: "0000:03:00.2", Kind: "vf", Pool: "fast", PF: "ens1f0 (0000:03:00.0)", Mode: "switchdev"}, Representor: "ens1f0npf0vf0", Driver: "mlx5_core", Holder: "pod demo/web"},
				{PodDevice: inspect.PodDevice{ID: "soft-a-0", Kind: "soft", Pool: "fast"}, Trouble: "its representor is gone"},
			},
		}},
		{Node: "w3"},
	}
	var b strings.Builder
	printDevices(&b, list)
	want := `w1:
POOL  READY  DEVICES  WELL  IN USE  WHY NOT
dry   no     0        0     0       DryRun: 1 steps would be done (ens2f0: make 8 VFs)
fast  yes    2        1     1       1 of 2 devices are unwell

POOL  DEVICE        KIND  NIC                    REPRESENTOR    DRIVER     MODE       STATE                    POD
fast  0000:03:00.2  vf    ens1f0 (0000:03:00.0)  ens1f0npf0vf0  mlx5_core  switchdev  well                     demo/web
fast  soft-a-0      soft  -                      -              -          -          its representor is gone  -

w3:
  no DevicePool selects it
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestDeviceText(t *testing.T) {
	vf := &inspect.PodDevice{ID: "0000:03:00.2", Kind: "vf", PF: "ens1f0 (0000:03:00.0)", Mode: "switchdev", Pool: "fast", Resource: "portolan.io/fast"}
	for _, c := range []struct {
		i    inspect.PodInterface
		want string
	}{
		{inspect.PodInterface{Port: "veth1"}, ""},
		{inspect.PodInterface{Fallback: "no VF is free"}, "no VF is free"},
		{inspect.PodInterface{Port: "rep0", Device: vf}, "0000:03:00.2, vf, of ens1f0 (0000:03:00.0), mode switchdev, representor rep0, pool fast, resource portolan.io/fast"},
		{inspect.PodInterface{Port: "sr-1", Device: &inspect.PodDevice{ID: "soft-a-0", Kind: "soft"}, Fallback: "no VF is free"}, "soft-a-0, soft, representor sr-1; no VF is free"},
	} {
		if got := deviceText(c.i); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
