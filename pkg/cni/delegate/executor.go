package delegate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// searchPath is where plugins find what they execute themselves.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// orphanPatience is how long Open waits for plugins that a killed process has left: a
// call of the runtime is given up after as long.
const orphanPatience = 60 * time.Second

// maxOutput bounds what is kept of a plugin's output, in bytes.
const maxOutput = 1 << 20

// executor implements libcni's invoke.Exec.
type executor struct {
	version.PluginDecoder
	cfg Config
	// lock is held by this process, and by each plugin that it has started: they inherit
	// it, and a kernel lock ends with its last holder.
	lock *os.File
}

func newExecutor(ctx context.Context, c Config) (*executor, error) {
	f, err := os.OpenFile(filepath.Join(c.State, "running.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("records of plugins: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, orphanPatience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond) // flock tells nobody when it is free
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return &executor{cfg: c, lock: f}, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s is locked: a CNI plugin that an earlier portolan-node has started still runs, look for it with fuser: %w", f.Name(), err), f.Close())
		}
	}
}

// path is a file of the plugins' file system as this process sees it.
func (x *executor) path(p string) string { return filepath.Join(x.cfg.Root, p) }

func (x *executor) exists(p string) bool {
	if p == "" {
		return false
	}
	_, err := os.Lstat(x.path(p))
	return err == nil
}

// FindInPath implements invoke.Exec. A plugin is a file of the plugin directory.
func (x *executor) FindInPath(plugin string, _ []string) (string, error) {
	if plugin == "" || plugin == "." || plugin == ".." || strings.ContainsAny(plugin, "/\\\x00") {
		return "", fmt.Errorf("plugin type %q is no name: it is looked for in %s and nowhere else", plugin, x.cfg.BinDir)
	}
	file := filepath.Join(x.cfg.BinDir, plugin)
	info, err := os.Lstat(x.path(file))
	switch {
	case err != nil:
		return "", fmt.Errorf("plugin %q is not in the node's plugin directory %s: install it there, or correct type in the definition", plugin, x.cfg.BinDir)
	case info.Mode()&os.ModeSymlink == 0 && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0):
		return "", fmt.Errorf("%s is no program: install the plugin %q there, or correct type in the definition", file, plugin)
	}
	return file, nil
}

// ExecPlugin implements invoke.Exec.
func (x *executor) ExecPlugin(ctx context.Context, file string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bounded
	c := exec.CommandContext(ctx, file)
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	c.Env = append(slices.DeleteFunc(environ, func(v string) bool { return !strings.HasPrefix(v, "CNI_") }), searchPath)
	c.Dir = "/"
	c.ExtraFiles = []*os.File{x.lock}
	c.WaitDelay = time.Second // a child of its own may keep its output open
	if x.cfg.Root != "" {
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: x.cfg.Root}
	}
	if err := c.Run(); err != nil {
		return nil, failure(ctx, err, stdout.Bytes(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// failure is what a plugin says of its end, or what the system says.
func failure(ctx context.Context, err error, stdout []byte, stderr string) error {
	said := &types.Error{}
	if json.Unmarshal(stdout, said) == nil && said.Msg != "" {
		return said
	}
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", err, cause)
	}
	if text := strings.TrimSpace(stderr + " " + string(stdout)); text != "" {
		return fmt.Errorf("%w: it says %.400q", err, text)
	}
	return fmt.Errorf("%w, and it says nothing", err)
}

// bounded is a buffer that keeps the first maxOutput bytes.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
