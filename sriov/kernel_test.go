//go:build kernel

package sriov_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// The kernel tier runs by root: go test -tags kernel ./sriov. The test binary starts
// itself in a network and a mount namespace of its own, where soft devices are real veth
// pairs. A process that is to be killed is a further start of the same binary.
const envVictim = "PTS_VICTIM" // after how many steps the process kills itself

func TestMain(m *testing.M) {
	if os.Getenv(envVictim) != "" {
		os.Exit(victim())
	}
	os.Exit(nstest.Main(syscall.CLONE_NEWNET|syscall.CLONE_NEWNS, func() int { return inside(m) }))
}

func inside(m *testing.M) int {
	dir := nstest.Dir()
	err := errors.Join(
		unix.Mount("tmpfs", dir, "tmpfs", 0, ""),
		os.Mkdir(dir+"/sys", 0o755), os.Mkdir(dir+"/netns", 0o755),
		unix.Mount("sysfs", dir+"/sys", "sysfs", 0, ""),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// rig is a keeper of real devices.
type rig struct {
	dir    string
	kernel *sriov.NetlinkKernel
	keeper *sriov.Keeper
}

// newRig makes a keeper whose records and switch are in a directory, as any process that
// is given it does. after is called after each step.
func newRig(dir string, after func(string)) (*rig, error) {
	k, err := sriov.NewKernel()
	if err != nil {
		return nil, err
	}
	sys := nstest.Dir() + "/sys"
	keeper, err := sriov.NewKeeper(sriov.KeeperConfig{
		Dir: dir + "/records", Inventory: sriov.NewInventory(sys, k.Devlink()), Kernel: sriovtest.Stepped{Kernel: k, After: after},
		Switch: fileSwitch{dir + "/ports", after}, Log: slog.New(slog.DiscardHandler), AtStep: after,
	})
	return &rig{dir, k, keeper}, errors.Join(err, os.MkdirAll(dir+"/ports", 0o755))
}

// fileSwitch has a file for each port, so that it outlives a process.
type fileSwitch struct {
	dir   string
	after func(string)
}

func (s fileSwitch) Plug(_ context.Context, representor string, p sriov.Plugged) error {
	file := filepath.Join(s.dir, representor)
	had, err := os.ReadFile(file)
	switch {
	case err == nil && string(had) != p.Owner.Sandbox:
		return fmt.Errorf("%s is %s's", representor, had)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := os.WriteFile(file+".new", []byte(p.Owner.Sandbox), 0o600); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	s.after("Plug")
	return nil
}

func (s fileSwitch) Unplug(_ context.Context, representor string, o sriov.Owner) (settled func(context.Context), err error) {
	file := filepath.Join(s.dir, representor)
	if had, err := os.ReadFile(file); err != nil || string(had) != o.Sandbox {
		return nil, nil
	}
	if err := os.Remove(file); err != nil {
		return nil, err
	}
	s.after("Unplug")
	return func(context.Context) { s.after("settled") }, nil
}

func (s fileSwitch) WaitInstalled(context.Context, string) error { return nil }

func nothing(string) {}

// sandbox makes a namespace with a path, as a runtime does.
func sandbox(t testing.TB, name string) (path string) {
	t.Helper()
	path = filepath.Join(nstest.Dir(), "netns", name)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := os.WriteFile(path, nil, 0o600)
		if err == nil {
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(path) })
	return path
}

func end(path string) {
	_ = unix.Unmount(path, unix.MNT_DETACH)
	os.Remove(path)
}

func realWish(t testing.TB, device, pod string, n int) sriov.Attachment {
	return sriov.Attachment{Device: device, MAC: mac(n), MTU: 1300, Alias: "portolan ns/" + pod,
		Owner: sriov.Owner{Sandbox: "sandbox-" + pod, Pod: "ns/" + pod, UID: "uid", NAD: "ns/soft", IfName: "net1", Netns: sandbox(t, pod)}}
}

// pairs makes soft devices that are not as the kernel makes them.
func pairs(t testing.TB, r *rig, n int) (ids []string) {
	t.Helper()
	for i := range n {
		label := fmt.Sprintf("a-%d", i)
		must(t, r.kernel.MakeSoft("sv-"+label, "sr-"+label, sriov.SoftOptions{MTU: 1500, Group: 7, Checksums: true}))
		l, err := r.kernel.Link(r.kernel.Host(), "sv-"+label)
		must(t, err)
		must(t, r.kernel.Set(r.kernel.Host(), l.Index, sriov.Change{MAC: mac(1000 + i)}))
		must(t, r.kernel.Set(r.kernel.Host(), l.Index, sriov.Change{MTU: 1450}))
		must(t, r.kernel.AddAltName(r.kernel.Host(), l.Index, "other-name-of-"+label))
		kept := "kept"
		must(t, r.kernel.Set(r.kernel.Host(), l.Index, sriov.Change{Alias: &kept}))
		must(t, r.kernel.SetUp(r.kernel.Host(), l.Index, true))
		ids = append(ids, "soft-"+label)
		t.Cleanup(func() { must(t, r.kernel.RemoveSoft("sr-"+label)) })
	}
	return ids
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seen is what the node has: all but indexes, and the MACs of representors, which a pair
// that is made again gets back too.
func (r *rig) seen(t testing.TB) string {
	t.Helper()
	links, err := r.kernel.Links(r.kernel.Host())
	must(t, err)
	var out []string
	for _, l := range links {
		slices.Sort(l.AltNames)
		out = append(out, fmt.Sprintf("%s %v %s %d up %t %q", l.Name, l.AltNames, l.MAC, l.MTU, l.Up, l.Alias))
	}
	ports, err := os.ReadDir(r.dir + "/ports")
	must(t, err)
	for _, p := range ports {
		out = append(out, "port "+p.Name())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func start(t testing.TB, dir string) *rig {
	t.Helper()
	r, err := newRig(dir, nothing)
	must(t, err)
	t.Cleanup(r.kernel.Close)
	return r
}

func (r *rig) records(t testing.TB) []sriov.Record {
	t.Helper()
	records, err := r.keeper.Records()
	must(t, err)
	return records
}

func TestKernelGivenAndTakenBack(t *testing.T) {
	r := start(t, t.TempDir())
	ids := pairs(t, r, 1)
	before := r.seen(t)
	ctx := context.Background()
	for n := range 3 {
		a := realWish(t, ids[0], fmt.Sprintf("g%d", n), n)
		given, err := r.keeper.Attach(ctx, a)
		must(t, err)
		if given.IfName != "net1" || given.MAC != mac(n).String() || given.MTU != 1300 || given.Device.Representor != "sr-a-0" {
			t.Errorf("given %+v", given)
		}
		must(t, r.keeper.Check(ctx, a.Device, a.Owner))
		ns, err := r.kernel.Open(a.Owner.Netns)
		must(t, err)
		l, err := r.kernel.Link(ns, "net1")
		must(t, err)
		must(t, ns.Close())
		if len(l.AltNames) != 0 || l.MTU != 1300 || !l.Up || l.MAC != mac(n).String() {
			t.Errorf("in the sandbox: %+v", l)
		}
		if b, err := os.ReadFile("/proc/sys/net/ipv6/conf/sr-a-0/disable_ipv6"); err == nil && strings.TrimSpace(string(b)) != "1" {
			t.Error("the node speaks IPv6 on the representor")
		}
		if n == 1 { // the sandbox ends without a DEL, and the pair with it
			end(a.Owner.Netns)
		}
		must(t, r.keeper.Release(ctx, a.Device, a.Owner))
		if got := r.seen(t); got != before {
			t.Errorf("released:\n%s\nbefore:\n%s", got, before)
		}
	}
	if left := r.records(t); len(left) > 0 {
		t.Errorf("records %+v", left)
	}
}

// victim attaches and releases what it is told to by its environment, and is killed by
// itself on the way.
func victim() int {
	steps, _ := strconv.Atoi(os.Getenv(envVictim))
	var n atomic.Int64
	r, err := newRig(os.Getenv("PTS_DIR"), func(string) {
		if n.Add(1) == int64(steps) {
			_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
			select {} // no step more
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var pods sync.WaitGroup
	for _, arg := range strings.Fields(os.Getenv("PTS_ARGS")) {
		pods.Add(1)
		go func() {
			defer pods.Done()
			err = errors.Join(err, act(r, arg))
		}()
	}
	pods.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// act gives a device to a pod: "device,path of the namespace,number,what", of which what
// is "add" or "both".
func act(r *rig, arg string) error {
	p := strings.Split(arg, ",")
	number, err := strconv.Atoi(p[2])
	if err != nil {
		return err
	}
	pod := filepath.Base(p[1])
	a := sriov.Attachment{Device: p[0], MAC: mac(number), MTU: 1300, Alias: "portolan ns/" + pod,
		Owner: sriov.Owner{Sandbox: "sandbox-" + pod, Pod: "ns/" + pod, UID: "uid", NAD: "ns/soft", IfName: "net1", Netns: p[1]}}
	_, err = r.keeper.Attach(context.Background(), a)
	if _, busy := errors.AsType[*sriov.BusyError](err); busy {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Println("attached", arg)
	if p[3] == "both" {
		fmt.Println("releasing", arg)
		return r.keeper.Release(context.Background(), a.Device, a.Owner)
	}
	return nil
}

// run starts a victim; killed when it was.
func run(t testing.TB, dir string, steps int, args ...string) (out string, killed bool) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), envVictim+"="+strconv.Itoa(steps), "PTS_DIR="+dir, "PTS_ARGS="+strings.Join(args, " "))
	c.Stderr = os.Stderr
	text, err := c.Output()
	if err != nil {
		if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == unix.SIGKILL {
			return string(text), true
		}
		t.Fatalf("the process failed: %v", err)
	}
	return string(text), false
}

// TestKernelKilled kills a process by SIGKILL after each step of ADD and DEL; the next one
// makes the device wholly the pod's or wholly the node's.
func TestKernelKilled(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	ids := pairs(t, r, 1)
	before := r.seen(t)
	kills := 0
	for step := 1; ; step++ {
		gone := step%3 == 0
		a := realWish(t, ids[0], fmt.Sprintf("k%d", step), step)
		out, killed := run(t, dir, step, fmt.Sprintf("%s,%s,%d,both", a.Device, a.Owner.Netns, step))
		if !killed {
			break
		}
		kills++
		if gone {
			end(a.Owner.Netns)
		}
		if _, err := r.keeper.Repair(context.Background()); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		left := r.records(t)
		switch {
		case len(left) == 0:
			if got := r.seen(t); got != before {
				t.Errorf("step %d:\n%s\nbefore:\n%s", step, got, before)
			}
		case gone:
			t.Errorf("step %d: the sandbox is gone and has %+v", step, left)
		default:
			if err := r.keeper.Check(context.Background(), a.Device, a.Owner); err != nil {
				t.Errorf("step %d: %v", step, err)
			}
		}
		if strings.Contains(out, "attached") && !strings.Contains(out, "releasing") && len(left) == 0 && !gone {
			t.Errorf("step %d: what was given is lost", step)
		}
		must(t, r.keeper.Release(context.Background(), a.Device, a.Owner))
		if got := r.seen(t); got != before {
			t.Errorf("step %d, released:\n%s\nbefore:\n%s", step, got, before)
		}
		end(a.Owner.Netns)
	}
	if kills < 15 {
		t.Errorf("only %d steps", kills)
	}
	t.Logf("%d kills", kills)
}

// envCycles says how many ADDs and DELs TestKernelSoup plays, if not 100: each waits several
// times for the kernel to let a namespace go, and 1,000 take minutes.
const envCycles = "PTS_CYCLES"

// TestKernelSoup: eight pods compete for four devices in processes that are killed; DELs
// come late.
func TestKernelSoup(t *testing.T) {
	dir := t.TempDir()
	s := &kernelSoup{rig: start(t, dir), dice: rand.New(rand.NewPCG(1, 2)), has: map[string]sriov.Attachment{}}
	s.ids = pairs(t, s.rig, 4)
	before := s.seen(t)
	wanted := 100
	if n, err := strconv.Atoi(os.Getenv(envCycles)); err == nil {
		wanted = n
	}
	deadline := time.Now().Add(2*time.Minute + time.Duration(wanted)*500*time.Millisecond)
	for round := 0; s.cycles < wanted; round++ {
		if time.Now().After(deadline) {
			t.Fatalf("%d cycles before the deadline", s.cycles)
		}
		wishes := s.compete(t, round)
		if _, err := s.keeper.Repair(context.Background()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s.judge(t, "after a start")
		s.part(t, wishes)
		s.judge(t, "after late DELs")
	}
	for _, a := range s.has {
		must(t, s.keeper.Release(context.Background(), a.Device, a.Owner))
	}
	if _, err := s.keeper.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := s.seen(t); got != before {
		t.Errorf("the end:\n%s\nbefore:\n%s", got, before)
	}
	if left := s.records(t); len(left) > 0 {
		t.Errorf("records %+v", left)
	}
	t.Logf("%d cycles, %d kills, %d late DELs", s.cycles, s.kills, s.late)
}

type kernelSoup struct {
	*rig
	ids                 []string
	dice                *rand.Rand
	has                 map[string]sriov.Attachment // by device
	old                 []sriov.Attachment          // of sandboxes that are gone
	cycles, kills, late int
}

// compete lets eight pods ask at once, in a process that may be killed.
func (s *kernelSoup) compete(t *testing.T, round int) (wishes map[string]sriov.Attachment) {
	t.Helper()
	var args []string
	wishes = map[string]sriov.Attachment{}
	for pod := range 8 {
		number := 100 + 8*round + pod
		a := realWish(t, s.ids[s.dice.IntN(len(s.ids))], fmt.Sprintf("s%d-%d", round, pod), number)
		arg := fmt.Sprintf("%s,%s,%d,%s", a.Device, a.Owner.Netns, number, []string{"add", "both"}[s.dice.IntN(2)])
		args, wishes[arg] = append(args, arg), a
	}
	out, killed := run(t, s.dir, 10+s.dice.IntN(150), args...)
	if killed {
		s.kills++
	}
	for line := range strings.Lines(out) {
		what, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		a := wishes[arg]
		if what != "attached" {
			delete(s.has, a.Device)
			continue
		}
		if other, ok := s.has[a.Device]; ok {
			t.Fatalf("device %s is %s's and %s's", a.Device, other.Owner, a.Owner)
		}
		s.has[a.Device] = a
		s.cycles++
	}
	return wishes
}

func (s *kernelSoup) judge(t *testing.T, when string) {
	t.Helper()
	for device, a := range s.has {
		if err := s.keeper.Check(context.Background(), device, a.Owner); err != nil {
			t.Fatalf("%s, %s has lost its device: %v", when, a.Owner, err)
		}
	}
}

// part lets sandboxes end, with a DEL or without, also those that got nothing; then come
// DELs of some that ended before.
func (s *kernelSoup) part(t *testing.T, wishes map[string]sriov.Attachment) {
	t.Helper()
	for _, a := range s.has {
		wishes[a.Owner.Sandbox] = a
	}
	for _, a := range wishes {
		if s.has[a.Device].Owner.Sandbox == a.Owner.Sandbox {
			if s.dice.IntN(2) == 0 {
				continue
			}
			delete(s.has, a.Device)
		}
		if s.dice.IntN(2) == 0 {
			must(t, s.keeper.Release(context.Background(), a.Device, a.Owner))
		}
		end(a.Owner.Netns)
		s.old = append(s.old, a)
	}
	for range 3 {
		s.late++
		a := s.old[s.dice.IntN(len(s.old))]
		must(t, s.keeper.Release(context.Background(), a.Device, a.Owner))
	}
}

// TestKernelDevlink: this kernel has devlink or has none; either is told.
func TestKernelDevlink(t *testing.T) {
	k, err := sriov.NewKernelDevlink()
	must(t, err)
	defer k.Close()
	if _, err := k.Ports(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := k.Mode("pci", "ffff:ff:1f.7"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("of a device that does not exist: %v", err)
	}
}

// BenchmarkAttach is ADD and DEL of a soft device.
func BenchmarkAttach(b *testing.B) {
	r := start(b, b.TempDir())
	ids := pairs(b, r, 1)
	a := realWish(b, ids[0], "bench", 1)
	for b.Loop() {
		_, err := r.keeper.Attach(context.Background(), a)
		must(b, err)
		must(b, r.keeper.Release(context.Background(), a.Device, a.Owner))
	}
}
