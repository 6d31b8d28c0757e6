package script

import "testing"

func TestDelivered(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"to a pod":            {"egress\n 1. x\n    output;\n    /* output to \"default_db\", type \"\" */\n", true},
		"to a router":         {"    /* output to \"stor-node1\", type \"patch\" */\n", false},
		"to a wire":           {"    /* output to \"br-ex_node1\", type \"localnet\" */\n", true},
		"to another zone":     {"    /* output to \"tstor-node2\", type \"remote\" */\n", true},
		"only ARP":            {"    arp { output; };\n\n    arp\n    ---\n        /* output to \"default_db\", type \"\" */\n    drop;\n", false},
		"ARP, and the packet": {"    arp\n    ---\n        /* output to \"a\", type \"\" */\n    /* output to \"b\", type \"\" */\n", true},
		"dropped":             {"    drop;\n", false},
	} {
		if got := Delivered(c.text); got != c.want {
			t.Errorf("%s: %v, wanted %v", name, got, c.want)
		}
	}
}
