package engine_test

import (
	"flag"
	"testing"

	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

var (
	update = flag.Bool("update", false, "rewrite the files that scripts compare with")
	onReal = flag.Bool("real", false, "also run scripts on real ovsdb-servers")
)

func TestScripts(t *testing.T) {
	scripttest.Suite{Update: *update, New: func(testing.TB) script.Config {
		return script.Config{Kinds: toyKinds(), Door: toyDoor, Databases: scripttest.Simulate(rows.NB, rows.OVS)}
	}}.Run(t, "testdata")
}

// TestScriptsOnRealServers keeps the simulation honest: each script, and each of
// its expansions, must end the same way on real servers.
func TestScriptsOnRealServers(t *testing.T) {
	if !*onReal {
		t.Skip("real servers are a tier of their own: run with -real")
	}
	scripttest.Suite{Plain: true, New: func(t testing.TB) script.Config {
		return script.Config{Kinds: toyKinds(), Door: toyDoor, Databases: scripttest.RealServers(t)}
	}}.Run(t, "testdata")
}
