package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// tree makes a root with one of each kind of entry.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, step := range []func() error{
		func() error { return os.MkdirAll(filepath.Join(root, "bin"), 0o755) },
		func() error { return os.WriteFile(filepath.Join(root, "bin/tool"), []byte("tool"), 0o755) },
		func() error { return os.Link(filepath.Join(root, "bin/tool"), filepath.Join(root, "bin/tool2")) },
		func() error { return os.Symlink("tool", filepath.Join(root, "bin/sh")) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestSameTreeSameArchive(t *testing.T) {
	root, dir := tree(t), t.TempDir()
	var archives [][]byte
	for _, name := range []string{"a.tar", "b.tar"} {
		if err := os.Chtimes(filepath.Join(root, "bin/tool"), time.Now(), time.Now()); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, name)
		if err := WriteArchive(root, out, Config{Tags: []string{"x:1"}}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, b)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("archives differ")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".layer-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestArchiveHoldsWhatItsManifestNames(t *testing.T) {
	out := filepath.Join(t.TempDir(), "a.tar")
	if err := WriteArchive(tree(t), out, Config{Tags: []string{"x:1", "y:1"}, Entrypoint: []string{"/bin/tool"}}); err != nil {
		t.Fatal(err)
	}
	files := untar(t, out)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	m := manifest[0]
	if !slices.Equal(m.RepoTags, []string{"x:1", "y:1"}) {
		t.Errorf("tags %v", m.RepoTags)
	}
	if files[m.Config] == nil || len(m.Layers) != 1 || files[m.Layers[0]] == nil {
		t.Fatalf("manifest %+v names what is not there", m)
	}
	kinds := map[string]byte{}
	tr := tar.NewReader(bytes.NewReader(files[m.Layers[0]]))
	for h, err := tr.Next(); err == nil; h, err = tr.Next() {
		kinds[h.Name] = h.Typeflag
	}
	want := map[string]byte{"bin/": tar.TypeDir, "bin/sh": tar.TypeSymlink, "bin/tool": tar.TypeReg, "bin/tool2": tar.TypeLink}
	for name, kind := range want {
		if kinds[name] != kind {
			t.Errorf("%s is %q, want %q", name, kinds[name], kind)
		}
	}
}

func untar(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}
