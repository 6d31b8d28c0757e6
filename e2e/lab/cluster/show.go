package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Status prints what runs and what Kubernetes says about it.
func (l *Lab) Status(ctx context.Context) error {
	r, err := l.read()
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(l.Out, "down")
		return nil
	}
	if err != nil {
		return err
	}
	o := r.Options
	word := map[bool]string{true: "up", false: "starting or interrupted"}[r.Up]
	fmt.Fprintf(l.Out, "%s: %d nodes, cni %s, zone %s, %s\nkubeconfig %s (in netns %s)\n\n", word, o.Nodes, o.CNI, o.Zone, o.Families, l.Kubeconfig(), wire.LAN())
	for _, n := range plan.Of(o).Machines {
		state := "down"
		if pid, err := node.InitPID(n.Name); err == nil {
			state = fmt.Sprintf("init %d", pid)
		}
		fmt.Fprintf(l.Out, "%-18s %-12s %v  netns %s\n", n.Name, state, n.IPs(), wire.Namespace(n.Name))
	}
	for _, w := range plan.Of(o).Wire {
		fmt.Fprintf(l.Out, "%-18s on the second wire, VLAN %d  %v  netns %s\n", w.Name, w.VLAN, w.IPs(), wire.Namespace(w.Name))
	}
	for _, args := range [][]string{{"get", "nodes", "-o", "wide"}, {"get", "pods", "-A", "-o", "wide"}} {
		out, err := l.kubectl(ctx, append(args, "--request-timeout=5s")...)
		if err != nil {
			return err
		}
		fmt.Fprintf(l.Out, "\n%s", out)
	}
	return nil
}

// Logs prints the logs of one node, or of all and of the builds: of each file its
// path and its last lines. The files stay where they are for who wants all.
func (l *Lab) Logs(names []string, lines int) error {
	patterns := []string{filepath.Join(l.Builder.Log, "*.log")}
	nodes := filepath.Join(l.Dirs.State, "nodes")
	if len(names) == 0 {
		names = []string{"*"}
	} else {
		patterns = nil
	}
	for _, n := range names {
		patterns = append(patterns, filepath.Join(nodes, n, "log", "*.log"), filepath.Join(nodes, n, "log", "pods", "*", "*", "*.log"))
	}
	found := 0
	for _, p := range patterns {
		files, err := filepath.Glob(p)
		if err != nil {
			return err
		}
		for _, f := range files {
			found++
			if err := printTail(l.Out, f, lines); err != nil {
				return err
			}
		}
	}
	if found == 0 {
		return fmt.Errorf("no logs of %q in %s", names, nodes)
	}
	return nil
}

// printTail prints a file's last lines under its path; 0 lines is the whole file.
func printTail(w io.Writer, path string, lines int) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a pod's log whose container is gone
	}
	if err != nil {
		return err
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if lines > 0 && len(all) > lines {
		all = all[len(all)-lines:]
	}
	_, err = fmt.Fprintf(w, "==> %s <==\n%s\n\n", path, strings.Join(all, "\n"))
	return err
}
