package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestKeyDependsOnEveryPartAndItsBorders(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{}, {""}, {"ab"}, {"a", "b"}, {"b", "a"}, {"a", "b", ""}} {
		k := KeyOf("x", parts...)
		if other, ok := seen[k.Hash]; ok {
			t.Errorf("%q and %q share a key", other, parts)
		}
		seen[k.Hash] = parts
	}
	if KeyOf("x", "a") != KeyOf("x", "a") {
		t.Error("a key is not stable")
	}
}

func TestFilePartsFollowContent(t *testing.T) {
	f := filepath.Join(t.TempDir(), "go.mod")
	read := func(content string) string {
		if err := os.WriteFile(f, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		parts, err := FileParts(f)
		if err != nil {
			t.Fatal(err)
		}
		return parts[0]
	}
	if read("a") == read("b") {
		t.Error("another content, the same part")
	}
	if _, err := FileParts(f + ".missing"); err == nil {
		t.Error("a missing file passed")
	}
}

func TestFailedFillLeavesNoEntryAndTheNextRunMakesIt(t *testing.T) {
	s, k := Store{Dir: filepath.Join(t.TempDir(), "c")}, KeyOf("x", "a")
	_, err := s.Make(t.Context(), k, func(_ context.Context, dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return errors.New("interrupted")
	})
	if err == nil || s.Has(k) {
		t.Fatalf("err %v, has %v", err, s.Has(k))
	}
	calls := 0
	for range 2 {
		dir, err := s.Make(t.Context(), k, func(_ context.Context, dir string) error {
			calls++
			return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != "whole" {
			t.Errorf("entry holds %v, %v", entries, err)
		}
	}
	if calls != 1 {
		t.Errorf("made %d times", calls)
	}
}

func TestOnlyOneOldGenerationIsKept(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	for _, v := range []string{"1", "2", "3", "4"} {
		if _, err := s.Make(t.Context(), KeyOf("x", v), func(context.Context, string) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Make(t.Context(), KeyOf("x-y", "1"), func(context.Context, string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	got, err := filepath.Glob(filepath.Join(s.Dir, "x-*"))
	if err != nil || len(got) != 3 {
		t.Errorf("cache holds %v, want two of x and one of x-y", got)
	}
	if !s.Has(KeyOf("x", "4")) {
		t.Error("the newest is gone")
	}
}
