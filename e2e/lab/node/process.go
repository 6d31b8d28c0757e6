package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Process is one process of a node, containers' included.
type Process struct {
	PID  int // as this machine numbers it
	Argv []string
}

// Program is the name of what runs, without its directory. A program that its own
// loader started (the base system's tools) is named by its loader.
func (p Process) Program() string { return filepath.Base(p.Argv[0]) }

// String is its command line.
func (p Process) String() string { return fmt.Sprintf("%d %s", p.PID, strings.Join(p.Argv, " ")) }

// Processes lists a node's processes; a node that is down has none.
func Processes(name string) ([]Process, error) {
	pids, err := processes(filepath.Join(members(), name))
	if err != nil {
		return nil, err
	}
	var out []Process
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || len(b) == 0 {
			continue // it has ended, or is about to
		}
		out = append(out, Process{PID: pid, Argv: strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")})
	}
	return out, nil
}
