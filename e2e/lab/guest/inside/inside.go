// Package inside is PID 1 of a guest: the program in the first root that the
// kernel starts. It loads the modules it was given, mounts the image, does the
// one Request that comes over the link, and ends the machine.
//
//	first root: /init (this program), /modules/NNN-NAME.ko in the order of loading
//	image:      ext4 on /dev/vda; what is written to it goes when QEMU ends
//
// There is no service manager: what the command starts in the background is
// reaped here, and ends with the machine.
package inside

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/guest/link"
)

// Path is where the first root has this program.
const Path = "/init"

// Is says whether this process was started by a kernel as the guest's PID 1.
func Is() bool { return os.Getpid() == 1 && os.Args[0] == Path }

// patience bounds the wait for a device. Emulated, and beside other guests, all is slow.
const patience = time.Minute

// Main is the life of PID 1; it does not return.
func Main() {
	err := live()
	if err != nil {
		console("guest: %v\n", err)
	}
	unix.Sync()
	// QEMU ends at a reset (-no-reboot); every kernel can do one, not every kernel can power off.
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	panic(err) // PID 1's end is a panic of the kernel, which ends QEMU too
}

// console says something where the serial log has it.
func console(format string, args ...any) {
	if f, err := os.OpenFile("/dev/console", os.O_WRONLY, 0); err == nil {
		fmt.Fprintf(f, format, args...)
		f.Close()
	}
}

func live() error {
	if err := firstRoot(); err != nil {
		return fmt.Errorf("first root: %w", err)
	}
	if err := image(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	out := link.NewWriter(port)
	if err := out.JSON(link.KindBooted, link.Booted{Kernel: release(), Uptime: uptime()}); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	request, err := readRequest(bufio.NewReader(port))
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	exit := serve(request, out)
	unix.Sync() // what was written to shares
	exit.Uptime = uptime()
	if err := out.JSON(link.KindExit, exit); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	// The host ends QEMU when it has the last frame. A reset could overtake it.
	_, _ = io.Copy(io.Discard, port)
	return nil
}

// mount is one file system to mount.
type mount struct {
	what, kind, where, data string
	must                    bool // a kernel without it is of no use
}

func (m mount) do() error {
	if err := os.MkdirAll(m.where, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.what, m.where, m.kind, 0, m.data); err != nil && m.must {
		return fmt.Errorf("mount %s (%s) on %s: %w", m.what, m.kind, m.where, err)
	}
	return nil
}

func firstRoot() error {
	for _, m := range []mount{{"dev", "devtmpfs", "/dev", "", true}, {"proc", "proc", "/proc", "", true}, {"sys", "sysfs", "/sys", "", true}} {
		if err := m.do(); err != nil {
			return err
		}
	}
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := unix.InitModule(content, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", filepath.Base(f), err)
		}
	}
	return nil
}

// image makes the ext4 image the root, as switch_root does.
func image() error {
	if err := await("/dev/vda", func() bool { _, err := os.Stat("/dev/vda"); return err == nil }); err != nil {
		return err
	}
	root := mount{"/dev/vda", "ext4", "/image", "", true}
	if err := root.do(); err != nil {
		return err
	}
	for _, d := range []string{"dev", "proc", "sys"} {
		if err := os.MkdirAll("/image/"+d, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/"+d, "/image/"+d, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move /%s: %w", d, err)
		}
	}
	if err := os.Chdir("/image"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the image to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	// Namespaces made with ip netns need mounts that propagate, as on any host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	for _, m := range []mount{
		{"run", "tmpfs", "/run", "mode=755", true}, {"tmp", "tmpfs", "/tmp", "mode=1777", true},
		{"devpts", "devpts", "/dev/pts", "", true}, {"shm", "tmpfs", "/dev/shm", "", true},
		{"bpf", "bpf", "/sys/fs/bpf", "", false}, {"debugfs", "debugfs", "/sys/kernel/debug", "", false},
		{"cgroup2", "cgroup2", "/sys/fs/cgroup", "", false},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := loopback(); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return unix.Sethostname([]byte("guest"))
}

// loopback sets lo up.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

// openPort waits for the virtio serial port of the link's name.
func openPort() (*os.File, error) {
	var device string
	find := func() bool {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if text, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(text)) == link.Port {
				device = "/dev/" + filepath.Base(filepath.Dir(n))
				_, err := os.Stat(device)
				return err == nil
			}
		}
		return false
	}
	if err := await("serial port "+link.Port, find); err != nil {
		return nil, err
	}
	return os.OpenFile(device, os.O_RDWR, 0)
}

func await(what string, there func() bool) error {
	for deadline := time.Now().Add(patience); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("no %s after %s", what, patience)
		}
	}
	return nil
}

func release() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text))
}

func uptime() float64 {
	text, _ := os.ReadFile("/proc/uptime")
	first, _, _ := strings.Cut(string(text), " ")
	seconds, _ := strconv.ParseFloat(first, 64)
	return seconds
}
