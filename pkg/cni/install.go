package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// Where a runtime looks by default.
const (
	DefaultBinDir   = "/opt/cni/bin"
	DefaultConflist = "/etc/cni/net.d/10-portolan.conflist"
	BinaryName      = "portolan-cni"
)

// InstallBinary copies the plugin into the runtime's directory. The file appears
// whole: a call that the runtime makes meanwhile executes the old one or the new.
func InstallBinary(source, dir string) error {
	in, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("installing the CNI binary: %w", err)
	}
	defer in.Close()
	if err := writeWhole(filepath.Join(dir, BinaryName), 0o755, in); err != nil {
		return fmt.Errorf("installing the CNI binary: %w", err)
	}
	return nil
}

// Conflist is the network configuration list; socket is "" for the default.
func Conflist(socket string) []byte {
	type plugin struct {
		Type         string `json:"type"`
		MultiNetwork string `json:"multiNetwork"`
		Socket       string `json:"socket,omitempty"`
	}
	list := struct {
		CNIVersion  string   `json:"cniVersion"`
		CNIVersions []string `json:"cniVersions"`
		Name        string   `json:"name"`
		Plugins     []plugin `json:"plugins"`
	}{"1.0.0", wire.Versions(), "portolan", []plugin{{BinaryName, "native", socket}}}
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		panic(err) // strings only
	}
	return append(b, '\n')
}

// WriteConflist tells the runtime that this node serves pods. A file that is
// already so is not touched: runtimes reload on every change.
func WriteConflist(path, socket string) error {
	want := Conflist(socket)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err := writeWhole(path, 0o644, bytes.NewReader(want)); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return nil
}

// RemoveConflist tells the runtime that this node serves no pods; no error when
// the file is gone.
func RemoveConflist(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the CNI configuration: %w", err)
	}
	return nil
}

// writeWhole writes beside the file, then renames over it. The temporary name
// ends in what no runtime reads as a configuration.
func writeWhole(path string, mode os.FileMode, content io.Reader) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
