package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/site"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupParent holds one cgroup a node, in every hierarchy.
func cgroupParent() string { return site.Base() + "-lab" }

// members is the hierarchy in which a node's processes are counted; every
// container is in it too.
func members() string { return cgroupRoot + "/pids/" + cgroupParent() }

// hierarchies lists the cgroup v1 hierarchies of this machine.
func hierarchies() ([]string, error) {
	procs, err := filepath.Glob(cgroupRoot + "/*/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range procs {
		// The unified hierarchy of a hybrid machine has no controllers to give.
		if dir := filepath.Dir(p); filepath.Base(dir) != "unified" {
			out = append(out, dir)
		}
	}
	return out, nil
}

// Join puts this process into the cgroup of something that is no node, and ends
// with the lab.
func Join(name string) error { return joinCgroup(name) }

// joinCgroup puts this process into the node's cgroup, before it becomes the node.
func joinCgroup(node string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		parent := filepath.Join(root, cgroupParent())
		dir := filepath.Join(parent, node)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		// A cpuset admits no process until it names processors and memory.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(root, f))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("cgroup: %w", err)
			}
			for _, d := range []string{parent, dir} {
				if err := os.WriteFile(filepath.Join(d, f), b, 0o644); err != nil {
					return fmt.Errorf("cgroup: %w", err)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return fmt.Errorf("cgroup: join %s: %w", dir, err)
		}
	}
	return nil
}

// processes lists the processes in a cgroup and below it.
func processes(dir string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone since it was listed
			}
			return err
		}
		if d.Name() != "cgroup.procs" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				out = append(out, pid)
			}
		}
		return nil
	})
	return out, err
}

// killAll kills everything in a cgroup, and waits until it is empty.
func killAll(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := processes(dir)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill %d of %s: %w", pid, dir, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: processes %v are still there 20 s after SIGKILL", dir, pids)
		case <-tick.C:
		}
	}
}

// removeCgroups removes the directories of a node, or of all ("."), from every hierarchy.
func removeCgroups(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for {
		var left []error
		for _, root := range roots {
			left = append(left, removeTree(filepath.Join(root, cgroupParent(), node)))
		}
		err := errors.Join(left...)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// A cgroup is busy until its last process is reaped.
		time.Sleep(20 * time.Millisecond)
	}
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// favoured is the weight of a group whose process shall have the processor when it
// wants it (cpu.shares). A process that is in no such group weighs 1024, kubelet for
// one, which must come to its turn as well.
const favoured = 4096

// Favour gives one process of a node the processor before others, as it has it on a
// machine that does nothing else: containers that ask for little get little where
// tests, compilers and several labs share two cores.
func Favour(p Process) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !slices.Contains(strings.Split(f[1], ","), "cpu") {
			continue
		}
		root := filepath.Join(cgroupRoot, "cpu")
		for group := f[2]; strings.HasPrefix(group, "/"+cgroupParent()); group = filepath.Dir(group) {
			if err := os.WriteFile(filepath.Join(root, group, "cpu.shares"), []byte(strconv.Itoa(favoured)), 0o644); err != nil {
				return fmt.Errorf("favour %s: %w", p, err)
			}
		}
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, tid, -15); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("favour %s: %w", p, err)
		}
	}
	return nil
}
