package scripttest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// Suite says how the scripts of one directory are run.
type Suite struct {
	// New makes the shell's configuration with fresh databases, once for every run.
	New func(t testing.TB) script.Config
	// Update rewrites the files that cmp compares with, and expands nothing.
	Update bool
	// Plain runs scripts as written only, for databases that are slow to make.
	Plain bool
}

// Run runs every script of a directory.
func (s Suite) Run(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { s.file(t, file) })
	}
}

func (s Suite) file(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# ") {
		t.Error("the script does not begin with a comment that says why it exists")
	}
	sc, err := script.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	sh := script.New(s.New(t))
	if s.Plain && sc.Has("foreign", "others", "vandalize") && !sh.Open() {
		t.Skip("the script writes as somebody else, which only a simulated database lets a shell do")
	}
	if err := sc.Run(sh, s.Update); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if s.Update {
		if err := os.WriteFile(file, sc.Format(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if sc.Once {
		return
	}
	s.check(t, sh)
	if !s.Plain {
		s.expand(t, sc)
	}
}

func (s Suite) check(t testing.TB, sh *script.Shell) {
	t.Helper()
	if err := Check(sh); err != nil {
		t.Error(err)
	}
}

// Simulated is a simulated database in a shell.
type Simulated struct{ *enginetest.DB }

// Snapshot reads the database.
func (s Simulated) Snapshot() (engine.Snapshot, error) { return s.DB.Snapshot(), nil }

// Simulate makes simulated databases.
func Simulate(names ...rows.DB) []script.Database {
	dbs := make([]script.Database, 0, len(names))
	for _, n := range names {
		dbs = append(dbs, Simulated{enginetest.New(n)})
	}
	return dbs
}

// Refuse takes groups out of a transaction as if the database refused them, with
// what needs them, and adds them to failed.
func Refuse(groups []engine.GroupOps, failed map[string]engine.Failure, bad func(group string) bool) []engine.GroupOps {
	var rest [][]engine.GroupOps
	for _, part := range engine.Parts(groups) {
		if !slices.ContainsFunc(part, func(g engine.GroupOps) bool { return bad(g.Group) }) {
			rest = append(rest, part)
			continue
		}
		for _, g := range part {
			failed[g.Group] = engine.Failure{Class: engine.Constraint, Err: "refused by the test"}
		}
	}
	return slices.Concat(engine.Withhold(rest, failed)...)
}
