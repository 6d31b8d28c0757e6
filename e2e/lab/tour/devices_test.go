package tour

import "testing"

func TestApart(t *testing.T) {
	on := func(name, node string) multi { return multi{pod: pod{node: node, networks: name}} }
	a, b, err := apart([]multi{on("1", "x"), on("2", "x"), on("3", "y")})
	if err != nil || a.networks != "1" || b.networks != "3" {
		t.Errorf("%s, %s, %v", a.networks, b.networks, err)
	}
	for _, list := range [][]multi{nil, {on("1", "x")}, {on("1", "x"), on("2", "x")}} {
		if _, _, err := apart(list); err == nil {
			t.Errorf("%d pods of one node, and two are apart", len(list))
		}
	}
}
