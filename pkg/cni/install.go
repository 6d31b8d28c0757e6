package cni

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/durable"
)

// Where a runtime looks by default.
const (
	DefaultBinDir   = "/opt/cni/bin"
	DefaultConflist = "/etc/cni/net.d/10-portolan.conflist"
	BinaryName      = "portolan-cni"
)

// Who attaches pods to the networks that their annotation names (decision 35).
const (
	Native = "native" // we do, in the runtime's one call
	Multus = "multus" // Multus does, a call each
)

// InstallBinary copies the plugin into the runtime's directory. The file appears
// whole: a call that the runtime makes meanwhile executes the old one or the new.
func InstallBinary(source, dir string) error {
	in, err := os.Open(source)
	if err != nil {
		return fmt.Errorf("installing the CNI binary: %w", err)
	}
	defer in.Close()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("installing the CNI binary: %w", err)
	}
	if err := durable.Copy(filepath.Join(dir, BinaryName), 0o755, in); err != nil {
		return fmt.Errorf("installing the CNI binary: %w", err)
	}
	return nil
}

// InstallNames makes the plugin callable by other names: the types that Multus finds
// in definitions. A file of such a name that is not ours is left alone, and is an error.
func InstallNames(dir string, names []string) error {
	var errs []error
	for _, name := range names {
		path := filepath.Join(dir, name)
		if name == BinaryName || ours(path) {
			continue
		}
		err := os.Symlink(BinaryName, path)
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%s is another program, which Multus would call for Portolan's networks: remove it", path)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ForeignError is of a plugin that another installer has put there, and that stays.
type ForeignError struct{ Path string }

// Error names the file.
func (e *ForeignError) Error() string {
	return e.Path + " is another program and stays: what is configured for it is its work; remove it for Portolan's to be installed"
}

// InstallCopy makes the plugin callable by a name that others have a plugin of, unless one
// of theirs is there: a *ForeignError. It is a copy and no link: an installer that comes
// later and writes over the file would write over what the link leads to.
func InstallCopy(dir, name string) error {
	path := filepath.Join(dir, name)
	if _, err := os.Lstat(path); err == nil && !portolan(path) {
		return &ForeignError{path}
	}
	in, err := os.Open(filepath.Join(dir, BinaryName))
	if err != nil {
		return fmt.Errorf("installing the CNI binary as %s: %w", name, err)
	}
	defer in.Close()
	if err := durable.Copy(path, 0o755, in); err != nil {
		return fmt.Errorf("installing the CNI binary as %s: %w", name, err)
	}
	return nil
}

// RemoveCopy takes back what InstallCopy made; no error when it is gone, or another's.
func RemoveCopy(dir, name string) error {
	if path := filepath.Join(dir, name); portolan(path) {
		return durable.Remove(path)
	}
	return nil
}

// portolan reports whether a file is this plugin, of any release.
func portolan(path string) bool {
	info, err := buildinfo.ReadFile(path)
	return err == nil && strings.HasSuffix(info.Path, "/cmd/"+BinaryName)
}

// RemoveNames takes back what InstallNames made; no error when it is gone.
func RemoveNames(dir string, names []string) error {
	var errs []error
	for _, name := range names {
		if path := filepath.Join(dir, name); ours(path) {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// ours reports whether a path is a link that InstallNames made.
func ours(path string) bool {
	to, err := os.Readlink(path)
	return err == nil && to == BinaryName
}

// Conflist is the network configuration list; socket is "" for the default. Multi is
// "native", or "multus": then a call is for the default network alone, as Multus means it.
func Conflist(socket, multi string) []byte {
	// Multus hands our result on as it is, and calls us by the highest version of a list:
	// runtimes that refuse 1.1.0 (decision 27) would be given it. So there is no list.
	versions := wire.Versions()
	if multi != Native {
		multi, versions = "", nil
	}
	type plugin struct {
		Type         string `json:"type"`
		MultiNetwork string `json:"multiNetwork,omitempty"`
		Socket       string `json:"socket,omitempty"`
	}
	list := struct {
		CNIVersion  string   `json:"cniVersion"`
		CNIVersions []string `json:"cniVersions,omitempty"`
		Name        string   `json:"name"`
		Plugins     []plugin `json:"plugins"`
	}{"1.0.0", versions, "portolan", []plugin{{BinaryName, multi, socket}}}
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		panic(err) // strings only
	}
	return append(b, '\n')
}

// WriteConflist tells the runtime that this node serves pods. A file that is
// already so is not touched: runtimes reload on every change.
func WriteConflist(path, socket, multi string) error {
	want := Conflist(socket, multi)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	if err := durable.Write(path, 0o644, want); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return nil
}

// RemoveConflist tells the runtime that this node serves no pods; no error when
// the file is gone.
func RemoveConflist(path string) error {
	if err := durable.Remove(path); err != nil {
		return fmt.Errorf("removing the CNI configuration: %w", err)
	}
	return nil
}

// Mode says whom the runtime asks for a pod's network, by its configuration directory:
// "native" when it is our conflist, "multus" when Multus comes before it and calls us,
// "FILE comes first" when another plugin does, "none" when our conflist is not there.
// Runtimes take the first file by name. A conflist for the other mode is Twice: every
// network is attached by Multus and by us; or Half: none but the default one is.
func Mode(dir, ours string) string {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return "none"
	}
	first, installed := "", false
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
			if first == "" {
				first = e.Name()
			}
			installed = installed || e.Name() == ours
		}
	}
	switch native := isNative(filepath.Join(dir, ours)); {
	case !installed:
		return "none"
	case first == ours && native:
		return Native
	case first == ours:
		return Half
	case !strings.Contains(strings.ToLower(first), "multus"):
		return first + " comes first"
	case native:
		return Twice
	}
	return Multus
}

// Modes that do harm: the Cluster file's multiNetwork and the directory disagree.
const (
	Twice = "twice" // Multus calls, and our conflist is native
	Half  = "half"  // our conflist is for Multus, which does not come first
)

// isNative reads a conflist of ours; one that cannot be read is taken for native.
func isNative(path string) bool {
	b, err := os.ReadFile(path)
	var list struct{ Plugins []NetConf }
	if err != nil || json.Unmarshal(b, &list) != nil || len(list.Plugins) == 0 {
		return true
	}
	return list.Plugins[0].MultiNetwork == Native
}
