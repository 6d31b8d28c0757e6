// Package image writes container images without Docker, a registry or a
// builder: a directory goes in, a docker-archive with one layer comes out, as
// `ctr images import` and `buildah pull docker-archive:` read it. It is
// deterministic: sorted entries and zero times, so the same tree is the same image.
package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Config is what an image says about how it is run.
type Config struct {
	Tags       []string
	Entrypoint []string
	Cmd        []string
	User       string // uid:gid; empty is root
}

// defaultPath is the PATH a container gets.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// WriteArchive writes root as an image into the file out. Owners and modes are
// taken from the tree; device nodes and sockets are left out.
func WriteArchive(root, out string, c Config) (err error) {
	layer, err := os.CreateTemp(filepath.Dir(out), ".layer-*")
	if err != nil {
		return fmt.Errorf("image %v: %w", c.Tags, err)
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	sum := sha256.New()
	if err := writeLayer(io.MultiWriter(layer, sum), root); err != nil {
		return fmt.Errorf("image %v: %w", c.Tags, err)
	}
	id := hex.EncodeToString(sum.Sum(nil))
	config, err := c.encode(id)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("image %v: %w", c.Tags, err)
	}
	if err := writeOuter(f, layer, id, config, c.Tags); err != nil {
		f.Close()
		return fmt.Errorf("image %v: %w", c.Tags, err)
	}
	return f.Close()
}

// encode gives the image's configuration document.
func (c Config) encode(layer string) ([]byte, error) {
	type runConfig struct {
		Entrypoint []string `json:",omitempty"`
		Cmd        []string `json:",omitempty"`
		User       string   `json:",omitempty"`
		Env        []string
		WorkingDir string
	}
	return json.Marshal(struct {
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Created      time.Time `json:"created"`
		Config       runConfig `json:"config"`
		RootFS       struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}{
		Architecture: runtime.GOARCH, OS: "linux", Created: time.Unix(0, 0).UTC(),
		Config: runConfig{c.Entrypoint, c.Cmd, c.User, []string{defaultPath}, "/"},
		RootFS: struct {
			Type    string   `json:"type"`
			DiffIDs []string `json:"diff_ids"`
		}{"layers", []string{"sha256:" + layer}},
	})
}

func writeOuter(w io.Writer, layer *os.File, id string, config []byte, tags []string) error {
	sum := sha256.Sum256(config)
	configName := hex.EncodeToString(sum[:]) + ".json"
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	manifest, err := json.Marshal([]entry{{configName, tags, []string{id + ".tar"}}})
	if err != nil {
		return err
	}
	size, err := layer.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Name: id + ".tar", Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	if _, err := io.Copy(tw, layer); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{configName, config}, {"manifest.json", manifest}} {
		if err := tw.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		if _, err := tw.Write(f.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

func writeLayer(w io.Writer, root string) error {
	tw := tar.NewWriter(w)
	links := map[uint64]string{} // inode → first path: hard links stay links
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode()&(fs.ModeDevice|fs.ModeSocket|fs.ModeNamedPipe) != 0 {
			return nil
		}
		return writeEntry(tw, path, rel, info, links)
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, path, rel string, info fs.FileInfo, links map[uint64]string) error {
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name = rel
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uname, h.Gname, h.Format = "", "", tar.FormatPAX
	h.ModTime, h.AccessTime, h.ChangeTime = time.Unix(0, 0), time.Time{}, time.Time{}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode().IsRegular() && st.Nlink > 1 {
		if first, seen := links[st.Ino]; seen {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			links[st.Ino] = rel
		}
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}
