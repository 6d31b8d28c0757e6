package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// The reference plugins, by version. go install checks the module against the
// checksum database and keeps this module's own requirements out of it.
const pluginsVersion = "v1.9.1"

func pluginPaths() []string {
	const root = "github.com/containernetworking/plugins/plugins/"
	return []string{root + "main/ptp", root + "main/bridge", root + "ipam/host-local"}
}

// referencePlugins builds the plugins, unless the cache has them, and returns
// their directory. A cache entry is named by what it is made from, and is renamed
// into place when whole.
func referencePlugins(ctx context.Context) (string, error) {
	root := os.Getenv("PORTOLAN_CACHE")
	if root == "" {
		root = "/var/cache/portolan-lab"
	}
	sum := sha256.Sum256(fmt.Appendln(nil, pluginPaths(), pluginsVersion, runtime.Version(), runtime.GOARCH))
	entry := filepath.Join(root, "cni-plugins-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(entry); err == nil {
		return entry, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(root, ".cni-plugins-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	args := []string{"install", "-trimpath", "-ldflags=-s -w"}
	for _, p := range pluginPaths() {
		args = append(args, p+"@"+pluginsVersion)
	}
	c := exec.CommandContext(ctx, "go", args...)
	c.Env = append(os.Environ(), "GOBIN="+fresh, "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the reference plugins: %w: %s", err, out)
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, entry); err != nil {
		if _, other := os.Stat(entry); other != nil {
			return "", err
		}
	}
	return entry, nil
}
