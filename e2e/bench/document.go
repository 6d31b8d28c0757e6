package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// The marks between which document writes; what is around them is people's.
const (
	markBegin = "<!-- make bench writes from here -->\n"
	markEnd   = "<!-- to here -->\n"
)

// document replaces what is between the marks of a file.
func document(file, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begun := strings.Cut(string(b), markBegin)
	_, after, ended := strings.Cut(rest, markEnd)
	if !begun || !ended {
		return fmt.Errorf("%s: the marks %q and %q are not both there", file, strings.TrimSpace(markBegin), strings.TrimSpace(markEnd))
	}
	return os.WriteFile(file, []byte(before+markBegin+"\n"+strings.TrimSpace(text)+"\n\n"+markEnd+after), 0o644)
}

// frontMatter says where and when, then what other programs have printed.
func frontMatter(o options) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n", machine())
	for _, w := range o.with {
		title, file, ok := strings.Cut(w, "=")
		if !ok {
			return "", fmt.Errorf("-with %q is no TITLE=FILE", w)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n### %s\n\n```\n%s\n```\n", title, strings.Trim(figures(string(text)), "\n"))
	}
	return b.String(), nil
}

// figures drops what go test prints beside a test's own lines.
func figures(text string) string {
	noise := regexp.MustCompile(`^(goos|goarch|cpu|pkg):|^(PASS|ok |=== |--- )|^\?`)
	prefix := regexp.MustCompile(`^\s*[a-z_]+_test\.go:\d+: `)
	var keep []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\n"); !noise.MatchString(line) {
			keep = append(keep, prefix.ReplaceAllString(line, ""))
		}
	}
	return strings.Join(keep, "\n")
}

// machine is one sentence on where the figures are from.
func machine() string {
	var host unix.Utsname
	_ = unix.Uname(&host)
	var mem unix.Sysinfo_t
	_ = unix.Sysinfo(&mem)
	var load float64
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &load)
	}
	cpu := "unknown"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(b); m != nil {
			cpu = string(m[1])
		}
	}
	return fmt.Sprintf("%s, commit %s: %d CPUs (%s), %d GiB, Linux %s, OVN %s, OVS %s, %s; load %.1f before",
		time.Now().UTC().Format("2 January 2006"), commit(), runtime.NumCPU(), cpu, mem.Totalram*uint64(mem.Unit)>>30,
		unix.ByteSliceToString(host.Release[:]), versionOf("ovn-controller"), versionOf("ovs-vswitchd"), runtime.Version(), load)
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// versionOf is the last word of the first line that a daemon prints of itself.
func versionOf(daemon string) string {
	out, _ := ovsdbtest.Command(daemon, "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	words := strings.Fields(line)
	if len(words) == 0 {
		return filepath.Base(daemon) + " not found"
	}
	return words[len(words)-1]
}
