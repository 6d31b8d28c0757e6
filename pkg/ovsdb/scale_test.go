package ovsdb

import (
	"fmt"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// benchConn is a connection to a database with n ports on ten switches.
func benchConn(b *testing.B, n int) *Conn {
	b.Helper()
	s := ovsdbtest.StartServer(b, ovsdbtest.Schema("ovn-nb"))
	c, err := Dial(b.Context(), Config{DB: rows.NB, Endpoint: s.Endpoint, Zone: testZone, Lock: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	if _, err := c.Snapshot(b.Context()); err != nil {
		b.Fatal(err)
	}
	var groups []engine.GroupOps
	for i := range 10 {
		groups = append(groups, switchGroup(fmt.Sprint("n", i), fmt.Sprint("n", i)))
	}
	for i := range n {
		groups = append(groups, portGroup(fmt.Sprint("pod", i), fmt.Sprint("n", i%10)))
	}
	if res := c.Apply(b.Context(), txnOf(groups...)); res.Lost || len(res.Failed) > 0 {
		b.Fatal(res)
	}
	return c
}

func BenchmarkSnapshot10000Ports(b *testing.B) {
	c := benchConn(b, 10_000)
	for b.Loop() {
		if _, err := c.Snapshot(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplyOnePod(b *testing.B) {
	c := benchConn(b, 1000)
	i := 0
	for b.Loop() {
		i++
		res := c.Apply(b.Context(), engine.Txn{DB: rows.NB, NbCfg: int64(i), Groups: []engine.GroupOps{portGroup(fmt.Sprint("new", i), "n0")}})
		if res.Lost || len(res.Failed) > 0 {
			b.Fatal(res)
		}
	}
}

func BenchmarkEncode1000Pods(b *testing.B) {
	var groups []engine.GroupOps
	for i := range 1000 {
		groups = append(groups, portGroup(fmt.Sprint("pod", i), fmt.Sprint("n", i%10)))
	}
	for b.Loop() {
		encode(groups, testZone, LockName, 1)
	}
}
