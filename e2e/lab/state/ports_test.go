package state

import (
	"fmt"
	"testing"
)

func TestPodPort(t *testing.T) {
	yes := dict{{"namespace", "ns"}, {"pod", "true"}}
	row := record{"name": "ns_p", "external_ids": yes, "options": dict{{"iface-id-ver", "uid"}, {"requested-chassis", "a"}}}
	for _, c := range []struct {
		addrs any
		want  string
	}{
		{"0a:58:0a:f4:00:03 10.244.0.3", "[10.244.0.3]"},
		{set{"0a:58:0a:f4:00:03 10.244.0.3 fd00::3"}, "[10.244.0.3 fd00::3]"},
		{set{}, "[]"},
	} {
		row["addresses"] = c.addrs
		p, ok := podPort(row, "name", "addresses")
		if got := p.Addrs; !ok || p.Name != "ns_p" || p.Pod != "uid" || fmt.Sprint(got) != c.want {
			t.Errorf("%v: %+v, %v, want %s", c.addrs, p, ok, c.want)
		}
	}
	row["external_ids"] = dict{}
	if _, ok := podPort(row, "name", "addresses"); ok {
		t.Error("a port without the key is nobody's pod")
	}
}
