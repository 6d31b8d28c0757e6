package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

func testTool(args ...string) (string, error) {
	out, err := ovsdbtest.Command("ovsdb-tool", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestDatabaseIsCreatedOnceAndConverted(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "old.ovsschema")
	now := filepath.Join(dir, "new.ovsschema")
	write := func(path, version, column string) {
		t.Helper()
		text := `{"name":"Test","version":"` + version + `","tables":{"T":{"isRoot":true,"columns":{"a":{"type":"string"}` + column + `}}}}`
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(old, "1.0.0", "")
	write(now, "1.1.0", `,"b":{"type":"string"}`)
	db := database{filepath.Join(dir, "test.db"), old}
	if err := os.WriteFile(filepath.Join(dir, ".half-test.db"), []byte("a crash left this"), 0o600); err != nil {
		t.Fatal(err)
	}
	version := func(want string) {
		t.Helper()
		if err := db.prepare(testTool); err != nil {
			t.Fatal(err)
		}
		if got, err := testTool("db-version", db.file); err != nil || got != want {
			t.Fatalf("version %q, %v; want %s", got, err, want)
		}
	}
	version("1.0.0")
	if out, err := testTool("transact", db.file, `["Test",{"op":"insert","table":"T","row":{"a":"kept"}}]`); err != nil {
		t.Fatal(out, err)
	}
	version("1.0.0") // again: as it is
	db.schema = now
	version("1.1.0")
	out, err := testTool("query", db.file, `["Test",{"op":"select","table":"T","where":[],"columns":["a"]}]`)
	if err != nil || !strings.Contains(out, "kept") {
		t.Fatalf("rows after conversion: %s, %v", out, err)
	}
}

// TestDaemonsTakeTheirFlags starts each daemon with --version after its own flags:
// one that does not know a flag refuses before it prints a version.
func TestDaemonsTakeTheirFlags(t *testing.T) {
	for _, d := range daemons() {
		t.Run(d.name, func(t *testing.T) {
			out, err := ovsdbtest.Command(d.argv[0], append(append([]string{}, d.argv[1:]...), "--version")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), d.argv[0]) {
				t.Errorf("%v: %s", err, out)
			}
			if d.database.file != "" && !strings.HasPrefix(d.argv[1], d.database.file) {
				t.Errorf("serves %s, prepares %s", d.argv[1], d.database.file)
			}
		})
	}
}
