package tour

import (
	"net/netip"
	"testing"
)

func TestStatusOfAPod(t *testing.T) {
	var m multi
	err := parseStatus(`[{"name":"default","interface":"eth0","ips":["10.244.1.5"],"mac":"0a:58:0a:f4:01:05","default":true,"dns":{}},
		{"name":"demo/blue","interface":"net1","ips":["10.150.0.2"],"mac":"0a:58:0a:96:00:02","dns":{}}]`, &m.interfaces)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := m.on("blue"); err != nil || s.Interface != "net1" || s.IPs[0] != netip.MustParseAddr("10.150.0.2") {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := m.on("green"); err == nil {
		t.Error("an interface was found that is not there")
	}
	if parseStatus("", &m.interfaces) == nil {
		t.Error("no status is a status")
	}
}

func TestLastWords(t *testing.T) {
	if got := lastWords("pod x\n\nnothing keeps it from talking, as far as Portolan knows; one packet: …\n"); got != "nothing keeps it from talking" {
		t.Error(got)
	}
	if got := lastWords("why   net1 is not installed: x\n"); got != "why   net1 is not installed: x" {
		t.Error(got)
	}
}
