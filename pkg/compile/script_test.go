package compile_test

import (
	"flag"
	"path/filepath"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

var (
	update = flag.Bool("update", false, "rewrite the files that scripts compare with")
	onReal = flag.Bool("real", false, "also run scripts on real databases with a northd, and trace packets")
)

// TestScripts runs every feature's scripts on simulated databases, with all
// expansions.
func TestScripts(t *testing.T) {
	suite := scripttest.Suite{Update: *update, New: func(testing.TB) script.Config {
		return script.Config{Kinds: compile.Kinds(), Door: kube.Decode, Databases: scripttest.Simulate(rows.NB, rows.SB, rows.OVS)}
	}}
	each(t, suite)
}

// TestScriptsOnRealDatabases runs them as written on real ones: what compiles must
// also be committed, and the packets of trace lines must pass or not.
func TestScriptsOnRealDatabases(t *testing.T) {
	if !*onReal {
		t.Skip("real databases are a tier of their own: run with -real")
	}
	suite := scripttest.Suite{Plain: true, New: func(t testing.TB) script.Config {
		dbs, trace := scripttest.Real(t)
		return script.Config{Kinds: compile.Kinds(), Door: kube.Decode, Databases: dbs, Trace: trace}
	}}
	each(t, suite)
}

func each(t *testing.T, suite scripttest.Suite) {
	dirs, err := filepath.Glob("*/testdata")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Dir(dir), func(t *testing.T) { suite.Run(t, dir) })
	}
}
