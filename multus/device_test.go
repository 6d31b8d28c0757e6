package multus

import (
	"errors"
	"strings"
	"testing"
)

// info is device information with a type's map.
func info(kind, device string) string {
	return `{"type":"` + kind + `","version":"1.1.0","` + kind + `":` + device + `}`
}

func TestDeviceInformationThatIsRead(t *testing.T) {
	for name, text := range map[string]string{
		"a PCI device with an address only":   info("pci", `{"pci-address":"0000:01:02.2"}`),
		"a PCI device with all":               info("pci", `{"pci-address":"0000:01:02.2","vhost-net":"/dev/vhost-net","rdma-device":"mlx5_3","pf-pci-address":"0000:01:00.0","representor-device":"eth3"}`),
		"a vDPA device":                       info("vdpa", `{"parent-device":"vdpa3","driver":"vhost","path":"/dev/vhost-vdpa0","pci-address":"0000:02:01.6"}`),
		"a vhost-user device":                 info("vhost-user", `{"mode":"server","path":"/run/vhost.sock"}`),
		"a memif device":                      info("memif", `{"role":"master","path":"/run/m","mode":"ethernet"}`),
		"a mode as the client library has it": info("memif", `{"role":"slave","path":"/run/m","mode":"punt"}`),
		"version 1.0.0":                       `{"type":"pci","version":"1.0.0","pci":{"pci-address":"0000:01:02.2"}}`,
		"a key of a later version":            `{"type":"pci","version":"1.2.0","pci":{"pci-address":"0000:01:02.2","x":1},"y":2}`,
	} {
		d, err := ParseDeviceInfo("f", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		out, err := FormatDeviceInfo(*d)
		if err != nil || !strings.Contains(string(out), `"version": "1.1.0"`) {
			t.Errorf("%s: written as %s, %v", name, out, err)
		}
	}
}

func TestDeviceInformationThatIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"text that is no JSON":           {`{`, "is no JSON object"},
		"an unknown type":                {`{"type":"usb","version":"1.1.0"}`, `type is "usb"; write pci, vdpa, vhost-user or memif`},
		"a missing type":                 {`{"version":"1.1.0"}`, "type is"},
		"a missing version":              {`{"type":"pci","pci":{"pci-address":"0000:01:02.2"}}`, "version is"},
		"version 2":                      {`{"type":"pci","version":"2.0.0","pci":{"pci-address":"0000:01:02.2"}}`, `version is "2.0.0"`},
		"another type's map":             {`{"type":"pci","version":"1.1.0","vdpa":{}}`, "pci is missing; describe the device there"},
		"a missing PCI address":          {info("pci", `{}`), "pci.pci-address is missing"},
		"a PCI address that is none":     {info("pci", `{"pci-address":"01:02.2"}`), `pci.pci-address is "01:02.2"`},
		"a PF address that is none":      {info("pci", `{"pci-address":"0000:01:02.2","pf-pci-address":"x"}`), "pci.pf-pci-address is"},
		"a missing vDPA parent":          {info("vdpa", `{"driver":"vhost","path":"/d"}`), "vdpa.parent-device is missing"},
		"a vDPA driver that is none":     {info("vdpa", `{"parent-device":"v","driver":"x","path":"/d"}`), `vdpa.driver is "x"; write vhost or virtio`},
		"a missing vDPA path":            {info("vdpa", `{"parent-device":"v","driver":"vhost"}`), "vdpa.path is missing"},
		"a vhost-user mode that is none": {info("vhost-user", `{"mode":"x","path":"/d"}`), "vhost-user.mode is"},
		"a missing vhost-user path":      {info("vhost-user", `{"mode":"client"}`), "vhost-user.path is missing"},
		"a memif role that is none":      {info("memif", `{"role":"x","path":"/d","mode":"ip"}`), "memif.role is"},
		"a missing memif mode":           {info("memif", `{"role":"master","path":"/d"}`), "memif.mode is missing"},
		"a path that is no text":         {info("memif", `{"role":"master","path":1,"mode":"ip"}`), "not of the form of section 3"},
	} {
		d, err := ParseDeviceInfo("/run/f", []byte(c.text))
		var e *FieldError
		if d != nil || !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "device information /run/f: ") {
			t.Errorf("%s: %v, %v; want %q", name, d, err, c.want)
		}
	}
	if _, err := FormatDeviceInfo(DeviceInfo{Type: DevicePCI, PCI: &PCIDevice{}}); err == nil || !strings.Contains(err.Error(), "pci.pci-address is missing") {
		t.Errorf("a device without an address is written: %v", err)
	}
}

func FuzzParseDeviceInfo(f *testing.F) {
	f.Add(info("pci", `{"pci-address":"0000:01:02.2"}`))
	f.Add(info("memif", `{"role":"master","path":"/d","mode":"ip"}`))
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDeviceInfo("f", []byte(text))
		if err != nil {
			return
		}
		if _, err := FormatDeviceInfo(*d); err != nil {
			t.Fatalf("%s is read and not written: %v", text, err)
		}
	})
}
