package daemon

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
	db := File{filepath.Join(dir, "test.db"), old}
	if err := os.WriteFile(filepath.Join(dir, ".half-test.db"), []byte("a crash left this"), 0o600); err != nil {
		t.Fatal(err)
	}
	version := func(want string) {
		t.Helper()
		if err := db.Make(testTool); err != nil {
			t.Fatal(err)
		}
		if got, err := testTool("db-version", db.Path); err != nil || got != want {
			t.Fatalf("version %q, %v; want %s", got, err, want)
		}
	}
	version("1.0.0")
	if out, err := testTool("transact", db.Path, `["Test",{"op":"insert","table":"T","row":{"a":"kept"}}]`); err != nil {
		t.Fatal(out, err)
	}
	version("1.0.0") // again: as it is
	db.Schema = now
	version("1.1.0")
	out, err := testTool("query", db.Path, `["Test",{"op":"select","table":"T","where":[],"columns":["a"]}]`)
	if err != nil || !strings.Contains(out, "kept") {
		t.Fatalf("rows after conversion: %s, %v", out, err)
	}
}
