package multus

import (
	"os"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// result reads a CNI result of testdata/status.
func result(t *testing.T, text []byte) *types100.Result {
	t.Helper()
	r, err := types100.NewResult(text)
	if err != nil {
		t.Fatal(err)
	}
	got, err := types100.GetResult(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/status/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The golden text is what network-attachment-definition-client v1.7.7 makes of the
// same results (CreateNetworkStatuses, SetNetworkStatus), which is what Multus writes.
func TestTheStatusIsTextThatMultusWrites(t *testing.T) {
	device := &DeviceInfo{Type: DevicePCI, Version: DeviceInfoVersion, PCI: &PCIDevice{Address: "0000:18:02.5", PFAddress: "0000:18:00.0", Representor: "eth3"}}
	got, err := FormatStatus(StatusOf("portolan", result(t, read(t, "default.json")), nil), []Status{
		StatusOf("ns/blue", result(t, read(t, "device.json")), device),
		StatusOf("ns/l2", result(t, read(t, "noaddress.json")), nil),
	})
	if want := string(read(t, "annotation.golden")); err != nil || got != want {
		t.Fatalf("got %v\n%s\nwant\n%s", err, got, want)
	}
	list, err := ParseStatus(got)
	if err != nil || len(list) != 3 || !list[0].Default || list[1].Default {
		t.Fatalf("read again: %+v, %v", list, err)
	}
}

func TestStatusOfAResult(t *testing.T) {
	const none = `"dns":{}}`
	for _, c := range []struct{ name, result, want string }{
		{"a host's interface and its addresses are left out",
			`{"cniVersion":"1.0.0","interfaces":[{"name":"br0","mac":"0a:00:00:00:00:09"},{"name":"net1","mac":"0a:00:00:00:00:01","sandbox":"/n"}],"ips":[{"interface":0,"address":"10.0.0.1/24"},{"interface":1,"address":"10.0.0.5/24"}],` + none,
			"net1 0a:00:00:00:00:01 10.0.0.5"},
		{"of two interfaces with a sandbox the first is the attachment's",
			`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/n"},{"name":"net1.5","sandbox":"/n"}],"ips":[{"interface":1,"address":"10.0.0.5/24"}],` + none, "net1  "},
		{"addresses without an index are the attachment's",
			`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/n"}],"ips":[{"address":"10.0.0.5/24"}],` + none, "net1  10.0.0.5"},
		{"without a sandbox there are addresses only", `{"cniVersion":"1.0.0","interfaces":[{"name":"br0"}],"ips":[{"interface":0,"address":"10.0.0.1/24"},{"address":"10.0.0.5/24"}],` + none, "  10.0.0.5"},
		{"a result without anything", `{"cniVersion":"1.0.0",` + none, "  "},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := StatusOf("ns/a", result(t, []byte(c.result)), nil)
			if got := s.Interface + " " + s.MAC + " " + strings.Join(s.IPs, ","); got != c.want || s.Name != "ns/a" || s.Default {
				t.Fatalf("got %q (%+v), want %q", got, s, c.want)
			}
		})
	}
}

func TestOnlyTheFirstStatusIsTheDefaultNetworks(t *testing.T) {
	got, err := FormatStatus(Status{Name: "a"}, []Status{{Name: "b", Default: true}})
	if err != nil || strings.Count(got, `"default": true`) != 1 || strings.Index(got, `"default"`) > strings.Index(got, `"b"`) {
		t.Fatalf("%s, %v", got, err)
	}
	if _, err := FormatStatus(Status{Name: "a"}, []Status{{Interface: "net1"}}); err == nil || !strings.Contains(err.Error(), `name is missing; name the network of interface "net1"`) {
		t.Fatalf("a status without a name: %v", err)
	}
}

func TestStatusesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"text that is no JSON":       {"x", "is no list of statuses"},
		"a status without a name":    {`[{"interface":"eth0"}]`, "entry 0: name is missing"},
		"a MAC without an interface": {`[{"name":"a","mac":"0a:00:00:00:00:01"}]`, "interface is missing"},
		"two default networks":       {`[{"name":"a","default":true},{"name":"b","default":true}]`, "entry 1: default is true; set it once: entry 0"},
		"an address that is none":    {`[{"name":"a","ips":["x"]}]`, `ips is "x"; write an address`},
	} {
		if list, err := ParseStatus(c.text); list != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
	if list, err := ParseStatus(`[{"name":"a","ips":["10.0.0.1/24"],"x.io/k":1,"dns":{}}]`); err != nil || len(list) != 1 {
		t.Errorf("a prefix and a foreign key: %v, %v", list, err)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add(`[{"name":"a","interface":"eth0","ips":["10.0.0.1"],"default":true,"dns":{}}]`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseStatus(text)
		if err != nil || len(list) == 0 {
			return
		}
		again, err := FormatStatus(list[0], list[1:])
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseStatus(again); err != nil || len(back) != len(list) {
			t.Fatalf("%s is read as %+v, %v", again, back, err)
		}
	})
}
