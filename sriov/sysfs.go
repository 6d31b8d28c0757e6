package sriov

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// sysfs is the root of a sysfs: "/sys" but in tests.
type sysfs string

func (s sysfs) path(parts ...string) string {
	return filepath.Join(append([]string{string(s)}, parts...)...)
}

// text reads a file of one value.
func (s sysfs) text(parts ...string) (string, error) {
	b, err := os.ReadFile(s.path(parts...))
	return strings.TrimSpace(string(b)), err
}

// optional reads a value that a driver need not have: reading it then fails in many
// ways (ENOENT, EOPNOTSUPP, EINVAL of a link that is down), and all of them mean "".
func (s sysfs) optional(parts ...string) string {
	text, err := s.text(parts...)
	if err != nil {
		return ""
	}
	return text
}

// number reads a file of one number; otherwise where it has none.
func (s sysfs) number(otherwise int, parts ...string) int {
	n, err := strconv.Atoi(s.optional(parts...))
	if err != nil {
		return otherwise
	}
	return n
}

// link is the last part of a symbolic link's target; "" where there is none.
func (s sysfs) link(parts ...string) string {
	target, err := os.Readlink(s.path(parts...))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// names lists a directory, sorted; a directory that is not there is empty.
func (s sysfs) names(parts ...string) ([]string, error) {
	entries, err := os.ReadDir(s.path(parts...))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]string, len(entries))
	for n, e := range entries {
		out[n] = e.Name()
	}
	return out, nil
}

func (s sysfs) exists(parts ...string) bool {
	_, err := os.Lstat(s.path(parts...))
	return err == nil
}

// device is the directory of a device on its bus.
func device(bus, id string) string { return filepath.Join("bus", bus, "devices", id) }

func netdev(name string) string { return filepath.Join("class", "net", name) }

// switchID of a network device; "" where its driver has none.
func (s sysfs) switchID(name string) string { return s.optional(netdev(name), "phys_switch_id") }

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	auxiliary  = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[0-9]+$`)
	simulated  = regexp.MustCompile(`^(netdevsim[0-9]+)\.vf([0-9]+)$`)
)

// routingID is a PCI address as a number, of which VFs' are computed.
func routingID(address string) (int, bool) {
	if !pciAddress.MatchString(address) {
		return 0, false
	}
	rest := address[strings.IndexByte(address, ':')+1:]
	bus, err := strconv.ParseInt(rest[:2], 16, 32)
	slot, err2 := strconv.ParseInt(rest[3:5], 16, 32)
	if err != nil || err2 != nil {
		return 0, false
	}
	return int(bus)<<8 | int(slot)<<3 | int(rest[6]-'0'), true
}

// real is where a path leads, below the root.
func (s sysfs) real(parts ...string) (string, error) {
	path, err := filepath.EvalSymlinks(s.path(parts...))
	if err != nil {
		return "", err
	}
	root, err := filepath.EvalSymlinks(string(s))
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(path, root), nil
}
