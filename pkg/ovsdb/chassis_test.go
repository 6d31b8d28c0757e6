package ovsdb

import (
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func TestChassisAreListedAndRemoved(t *testing.T) {
	s := ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-sb"))
	for _, name := range []string{"one", "two"} {
		s.Transact("OVN_Southbound",
			`{"op":"insert","table":"Encap","uuid-name":"e","row":{"type":"geneve","ip":"192.0.2.`+map[string]string{"one": "1", "two": "2"}[name]+`","chassis_name":"`+name+`"}}`,
			`{"op":"insert","table":"Chassis","uuid-name":"c","row":{"name":"`+name+`","hostname":"host-`+name+`","encaps":["named-uuid","e"]}}`,
			`{"op":"insert","table":"Chassis_Private","row":{"name":"`+name+`","chassis":["named-uuid","c"]}}`)
	}
	c, _ := connect(t, Config{DB: rows.SB, Endpoint: s.Endpoint})
	if err := c.RemoveChassis(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := c.RemoveChassis(t.Context(), "one"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	left, err := c.Chassis(t.Context())
	if err != nil || !slices.Equal(left, []Chassis{{"two", "host-two"}}) {
		t.Errorf("left %v, %v", left, err)
	}
	for _, table := range []string{"Chassis_Private", "Encap"} {
		if text := s.Dump("OVN_Southbound", table); len(text) == 0 {
			t.Errorf("%s: nothing left, want two's", table)
		}
	}
	nb := ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-nb"))
	wrong, _ := connect(t, Config{DB: rows.NB, Endpoint: nb.Endpoint})
	if _, err := wrong.Chassis(t.Context()); err == nil {
		t.Error("the northbound database was asked for chassis")
	}
}
