package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// OVNRoot makes the base system, links it as ovn-root in the cache, where the
// product's tests look for OVN and OVS (pkg/ovsdb/ovsdbtest), and gives the link.
func (b Builder) OVNRoot(ctx context.Context) (string, error) {
	base := b.baseStep()
	if err := b.run(ctx, []step{base}); err != nil {
		return "", err
	}
	link, half := filepath.Join(b.Cache.Dir, "ovn-root"), filepath.Join(b.Cache.Dir, ".half-ovn-root")
	if err := os.RemoveAll(half); err != nil {
		return "", fmt.Errorf("ovn-root: %w", err)
	}
	if err := os.Symlink(filepath.Join(b.Cache.Path(base.key), "root"), half); err != nil {
		return "", fmt.Errorf("ovn-root: %w", err)
	}
	if err := os.Rename(half, link); err != nil {
		return "", fmt.Errorf("ovn-root: %w", err)
	}
	return link, nil
}
