package rig

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Host is a machine in the guest: network, mount, PID and UTS namespaces of its
// own, and a root that is the guest's with all writes kept apart and thrown away.
type Host struct {
	Name string
	lab  *Lab
	pid  int // of its init, in the guest's PID namespace
}

func (h *Host) t() *testing.T { return h.lab.t }

// boot is what a host's init does: a root of its own, as container runtimes make it.
const boot = `set -e
mount --make-rprivate /
mount -t tmpfs host /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay host -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sys sys
mount -t debugfs debugfs sys/kernel/debug
mount -t tmpfs run run
mount -t tmpfs tmp tmp
for d in $SHARES; do mkdir -p .$d; mount --rbind $d .$d; done
pivot_root . mnt
umount -l mnt
cd /
mkdir -p /run/netns /run/openvswitch /run/ovn
ip link set lo up
echo "$NAME" > /proc/sys/kernel/hostname
echo up
sleep infinity & wait`

// Host makes a host. shares are directories of the guest that it sees, too.
func (l *Lab) Host(name string, shares ...string) *Host {
	l.t.Helper()
	return l.host(name, unix.CLONE_NEWNET, shares)
}

// Machine makes a host whose network namespace is the guest's own: there PCI NICs make
// their functions. A guest has one at a time.
func (l *Lab) Machine(name string, shares ...string) *Host {
	l.t.Helper()
	h := l.host(name, 0, shares)
	l.t.Cleanup(func() { // after its daemons: the kernel's datapath would outlive them
		if _, err := h.Try("ovs-dpctl", "del-dp", "system@ovs-system"); err != nil {
			l.t.Log(err)
		}
	})
	return h
}

func (l *Lab) host(name string, network uintptr, shares []string) *Host {
	t := l.t
	t.Helper()
	cmd := exec.Command("sh", "-c", boot)
	cmd.Env = append(os.Environ(), "NAME="+name, "SHARES="+strings.Join(shares, " "))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: network | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("host %s: %v", name, err)
	}
	h := &Host{Name: name, lab: l, pid: cmd.Process.Pid}
	t.Cleanup(func() {
		if t.Failed() {
			h.logs()
		}
		_ = cmd.Process.Kill() // PID 1 takes everything with it
		_ = cmd.Wait()
	})
	if line := make([]byte, 3); true {
		if n, _ := out.Read(line); string(line[:n]) != "up\n" {
			_ = cmd.Wait()
			t.Fatalf("host %s: %s", name, said.String())
		}
	}
	return h
}

// chatter is what daemons tell of a slow machine, and of themselves.
var chatter = regexp.MustCompile(`\|(coverage|timeval|poll_loop|memory|ovs_rcu\(\w+\))\|`)

// logs prints the end of each log in the host's /run and /var/log.
func (h *Host) logs() {
	for _, pattern := range []string{"run/*.log", "var/log/*/*.log"} {
		files, _ := filepath.Glob(h.Path(pattern))
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil || len(text) == 0 {
				continue
			}
			lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(text)), "\n"), chatter.MatchString)
			h.t().Logf("%s: the end of %s:\n%s", h.Name, filepath.Base(f), strings.Join(lines[max(0, len(lines)-30):], "\n"))
		}
	}
}

// Path is where the guest's root namespace sees a file of the host.
func (h *Host) Path(name string) string { return fmt.Sprintf("/proc/%d/root/%s", h.pid, name) }

// PID is the host's init: ip link takes it for the host's network namespace.
func (h *Host) PID() string { return strconv.Itoa(h.pid) }

func (h *Host) command(ctx context.Context, argv []string) *exec.Cmd {
	in := []string{"--target", h.PID(), "--net", "--mount", "--pid", "--uts", "--"}
	return exec.CommandContext(ctx, "nsenter", append(in, argv...)...)
}

// Try runs a program on the host and gives what it printed, on stdout and stderr.
func (h *Host) Try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := h.command(ctx, argv).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s", h.Name, strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}

// Run is Try for what must succeed.
func (h *Host) Run(argv ...string) string {
	h.t().Helper()
	out, err := h.Try(argv...)
	if err != nil {
		h.t().Fatal(err)
	}
	return out
}

// Sh runs lines of shell that must succeed.
func (h *Host) Sh(lines string) string {
	h.t().Helper()
	return h.Run("sh", "-ec", lines)
}

// Start runs a program until the test ends, its output in /run/NAME.log of the
// host. The function that it gives kills it before.
func (h *Host) Start(name string, argv ...string) (kill func()) {
	h.t().Helper()
	log, err := os.Create(h.Path("run/" + name + ".log"))
	if err != nil {
		h.t().Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	// exec: the signal is for the program, and nsenter's child is the program itself.
	cmd := h.command(ctx, append([]string{"sh", "-c", `echo $$ > /run/` + name + `.init; exec "$@"`, "sh"}, argv...))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		cancel()
		h.t().Fatal(err)
	}
	done := false
	kill = func() {
		if done {
			return
		}
		done = true
		_, _ = h.Try("sh", "-c", "kill -KILL $(cat /run/"+name+".init)")
		cancel()
		_ = cmd.Wait()
	}
	h.t().Cleanup(kill)
	return kill
}

// Write writes a file of the host.
func (h *Host) Write(name, text string) {
	h.t().Helper()
	path := h.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t().Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t().Fatal(err)
	}
}

// Links are the names of the host's network devices, sorted.
func (h *Host) Links() []string {
	h.t().Helper()
	names := strings.Fields(h.Run("ls", "/sys/class/net"))
	slices.Sort(names)
	return names
}

// In runs fn in the host's network namespace: the sockets that it opens belong there.
func (h *Host) In(fn func() error) error { return inNamespace(h.netns(), fn) }

func (h *Host) netns() string { return fmt.Sprintf("/proc/%d/ns/net", h.pid) }

// inNamespace runs fn on a thread in a network namespace. A thread that cannot go
// back is not used again.
func inNamespace(path string, fn func() error) error {
	there, err := os.Open(path)
	if err != nil {
		return err
	}
	defer there.Close()
	done := make(chan error, 1)
	go func() { // ends with fn; its thread ends with it, for it stays locked
		runtime.LockOSThread()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("setns %s: %w", path, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// Pod is a network namespace of a host, with one interface eth0.
type Pod struct {
	Host *Host
	Name string
	Addr netip.Prefix
	MAC  net.HardwareAddr
}

// NewPod makes a pod without an interface.
func (h *Host) NewPod(name, addr, mac string) *Pod {
	h.t().Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		h.t().Fatal(err)
	}
	h.Run("ip", "netns", "add", name)
	h.Run("ip", "-n", name, "link", "set", "lo", "up")
	return &Pod{Host: h, Name: name, Addr: netip.MustParsePrefix(addr), MAC: hw}
}

// VethPod makes a pod whose eth0 is a veth; its other end is NAME-h on the host.
func (h *Host) VethPod(name, addr, mac string) *Pod {
	h.t().Helper()
	p := h.NewPod(name, addr, mac)
	h.Run("ip", "link", "add", name+"-h", "type", "veth", "peer", "name", "eth0", "netns", name)
	h.Run("ip", "link", "set", name+"-h", "up")
	p.up()
	return p
}

// PodAt is a pod that others have made on the host, with its address.
func PodAt(h *Host, name, addr string) *Pod {
	h.t().Helper()
	prefix, err := netip.ParsePrefix(addr)
	if err != nil {
		h.t().Fatal(err)
	}
	return &Pod{Host: h, Name: name, Addr: prefix}
}

// Take makes a device of the host the pod's eth0.
func (p *Pod) Take(device string) {
	p.Host.t().Helper()
	p.Host.Run("ip", "link", "set", device, "netns", p.Name, "name", "eth0")
	p.up()
}

func (p *Pod) up() {
	p.Host.t().Helper()
	p.Run("ip", "link", "set", "eth0", "address", p.MAC.String())
	p.Run("ip", "addr", "add", p.Addr.String(), "dev", "eth0")
	p.Run("ip", "link", "set", "eth0", "up")
}

// Route makes an address the pod's default gateway.
func (p *Pod) Route(gateway string) {
	p.Host.t().Helper()
	p.Run("ip", "route", "replace", "default", "via", gateway)
}

// Try runs a program in the pod's network namespace.
func (p *Pod) Try(argv ...string) (string, error) {
	return p.Host.Try(append([]string{"ip", "netns", "exec", p.Name}, argv...)...)
}

// Run is Try for what must succeed.
func (p *Pod) Run(argv ...string) string {
	p.Host.t().Helper()
	return p.Host.Run(append([]string{"ip", "netns", "exec", p.Name}, argv...)...)
}

// Start runs a program in the pod's network namespace until the test ends, as Host.Start does.
func (p *Pod) Start(name string, argv ...string) (kill func()) {
	p.Host.t().Helper()
	return p.Host.Start(name, append([]string{"ip", "netns", "exec", p.Name}, argv...)...)
}

// In runs fn in the pod's network namespace.
func (p *Pod) In(fn func() error) error { return inNamespace(p.Host.Path("run/netns/"+p.Name), fn) }
