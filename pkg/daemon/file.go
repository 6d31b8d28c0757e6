package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The schemas, where the packages of OVS and OVN put them.
const (
	OVSSchema = "/usr/share/openvswitch/vswitch.ovsschema"
	NBSchema  = "/usr/share/ovn/ovn-nb.ovsschema"
	SBSchema  = "/usr/share/ovn/ovn-sb.ovsschema"
)

// Run runs ovsdb-tool, the only program that creates and converts database files.
type Run func(args ...string) (string, error)

// OVSDBTool is the Run of a container.
func OVSDBTool(args ...string) (string, error) { return tool("ovsdb-tool", args...) }

// File is a database that one ovsdb-server serves by itself.
type File struct {
	Path   string
	Schema string // file
}

// Prepare is a Daemon's.
func (f File) Prepare(context.Context) error { return f.Make(OVSDBTool) }

// Make creates the file, or brings it to this release's schema. ovsdb-tool
// does both beside the file and renames, so a crash leaves the old one.
func (f File) Make(run Run) error {
	switch _, err := os.Stat(f.Path); {
	case errors.Is(err, fs.ErrNotExist):
		return halfway(f.Path, func(half string) error {
			_, err := run("create", half, f.Schema)
			return err
		})
	case err != nil:
		return err
	}
	needed, err := run("needs-conversion", f.Path, f.Schema)
	if err != nil || strings.TrimSpace(needed) == "no" {
		return err
	}
	_, err = run("convert", f.Path, f.Schema)
	return err
}

// halfway makes a file under another name first: one that ovsdb-tool had not
// finished would never be served and never be created again.
func halfway(path string, create func(half string) error) error {
	half := filepath.Join(filepath.Dir(path), ".half-"+filepath.Base(path))
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := create(half); err != nil {
		return err
	}
	return os.Rename(half, path)
}
