package engine_test

import (
	"flag"
	"testing"

	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

var update = flag.Bool("update", false, "rewrite the files that scripts compare with")

func TestScripts(t *testing.T) {
	scripttest.Suite{Update: *update, New: func(testing.TB) script.Config {
		return script.Config{Kinds: toyKinds(), Door: toyDoor, Databases: scripttest.Simulate(rows.NB, rows.OVS)}
	}}.Run(t, "testdata")
}
