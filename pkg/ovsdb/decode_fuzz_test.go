package ovsdb

import (
	"encoding/json"
	"testing"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// FuzzDecodeValue feeds a column's JSON to the decoder. Whatever it accepts fits
// the column, and says the same after a trip through the encoder.
func FuzzDecodeValue(f *testing.F) {
	for _, seed := range []string{
		`"x"`, `7`, `true`, `["set",[]]`, `["set",["a","b"]]`, `["map",[["k","v"],["",""]]]`, `["map",[["k",3]]]`,
		`["uuid","11111111-2222-4333-8444-555555555555"]`, `["set",[["uuid","a"],["uuid","b"]]]`, `["set",["a","a"]]`,
		`null`, `[]`, `["set"]`, `["set",null]`, `["map",[null]]`, `[["set"],[]]`, `9223372036854775808`, `1.5`, `["set",["set",[]]]`, ``,
	} {
		f.Add([]byte(seed), uint8(0))
	}
	columns := []rows.ColumnSchema{}
	for _, t := range []rows.Table{"NB:Logical_Switch_Port", "NB:QoS", "NB:NAT", "OVS:QoS", "OVS:Bridge", "SB:Chassis"} {
		s, _ := rows.SchemaOf(t)
		columns = append(columns, s.Columns...)
	}
	f.Fuzz(func(t *testing.T, text []byte, which uint8) {
		c := columns[int(which)%len(columns)]
		v, err := decodeValue(text, c)
		if err != nil {
			return
		}
		if err := c.Fits(v); err != nil {
			t.Fatalf("accepted %s for column %s: %v", text, c.Name, err)
		}
		again, err := json.Marshal(columnValue{schema: c, value: v, uuid: func(r rows.Ref) string { return r.ID }})
		if err != nil {
			t.Fatal(err)
		}
		w, err := decodeValue(again, c)
		if err != nil || !(v.Equal(w) || c.IsDefault(v) && c.IsDefault(w)) {
			t.Fatalf("%s became %s: %v, %v (%v)", text, again, v, w, err)
		}
	})
}

// FuzzReadRow feeds whole rows to the snapshot's reader.
func FuzzReadRow(f *testing.F) {
	f.Add([]byte(`{"_uuid":["uuid","11111111-2222-4333-8444-555555555555"],"name":"g","load_balancer":["set",[]]}`))
	f.Add([]byte(`{"_uuid":["uuid",""],"name":["set",[]],"load_balancer":["uuid","x"]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(_ *testing.T, line []byte) {
		for _, table := range []rows.Table{"NB:Load_Balancer_Group", "NB:Static_MAC_Binding"} {
			r := newReader(rows.NB)
			reply := append(append([]byte(`[{"rows":[`), line...), `]}]`...)
			if r.results(reply, []rows.Table{table}) != nil || len(r.found) == 0 {
				continue
			}
			r.identify()
			r.adopt()
			if r.found[0].ours {
				_ = r.actual(r.found[0])
			}
			_, _ = uniqueKeys(r.found[0]), r.found[0].String()
		}
	})
}
