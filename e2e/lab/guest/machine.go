package guest

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/guest/cpio"
	"github.com/portolan-cni/portolan/e2e/lab/guest/inside"
	"github.com/portolan-cni/portolan/e2e/lab/guest/link"
)

// Machine is the hardware of a guest.
type Machine struct {
	CPUs   int
	Memory string // as QEMU takes it: 2G
	NICs   bool   // two igb, with 7 virtual functions each, joined by a hub
}

// kernelArguments: cheap on an emulated processor, which may stand still for long (so no
// check of its timers); the IOMMU is on for
// vfio-pci and passes the kernel's own DMA through.
const kernelArguments = "console=ttyS0 loglevel=5 panic=-1 mitigations=off nokaslr audit=0 selinux=0 apparmor=0 nowatchdog no_timer_check " +
	"random.trust_cpu=on tsc=reliable rcupdate.rcu_expedited=1 intel_iommu=on iommu=pt"

// files of one run, in a directory of its own.
type files struct{ initrd, serial, socket string }

// command is QEMU's command line.
func (m Machine) command(p Parts, f files, shares []link.Share) []string {
	argv := append(ownLoader(p.QEMU), filepath.Join(p.QEMU, "usr/bin/qemu-system-x86_64"))
	for _, d := range []string{"usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"} {
		argv = append(argv, "-L", filepath.Join(p.QEMU, d))
	}
	argv = append(argv,
		"-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot", "-name", "portolan-guest",
		"-M", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-smp", strconv.Itoa(m.CPUs), "-m", m.Memory,
		"-device", "intel-iommu,intremap=off",
		"-kernel", p.Vmlinuz, "-initrd", f.initrd, "-append", kernelArguments,
		"-serial", "file:"+f.serial,
		"-device", "virtio-serial-pci", "-chardev", "socket,id=link,path="+quote(f.socket), "-device", "virtserialport,chardev=link,name="+link.Port,
		"-device", "virtio-rng-pci",
		"-drive", "if=none,id=disk,format=raw,snapshot=on,file="+quote(p.Image), "-device", "virtio-blk-pci,drive=disk")
	for _, s := range shares {
		argv = append(argv, "-fsdev", "local,security_model=none,multidevs=remap,id="+s.Tag+",path="+quote(s.Path),
			"-device", "virtio-9p-pci,fsdev="+s.Tag+",mount_tag="+s.Tag)
	}
	if !m.NICs {
		return argv
	}
	for i := range 2 {
		n := strconv.Itoa(i)
		// VFs need an address space of their own: a root port each, as PCIe has it.
		argv = append(argv, "-netdev", "hubport,id=cable"+n+",hubid=0",
			"-device", fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d,slot=%d", i, i+1, i+1),
			"-device", fmt.Sprintf("igb,bus=slot%d,netdev=cable%d,mac=52:54:00:00:00:%02x", i, i, i+1))
	}
	return argv
}

// quote doubles commas, which separate QEMU's options.
func quote(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// environment has where QEMU finds its modules.
func (p Parts) environment() []string {
	return append(os.Environ(), "QEMU_MODULE_DIR="+filepath.Join(p.QEMU, "usr/lib/x86_64-linux-gnu/qemu"))
}

// writeFirstRoot writes what the kernel unpacks as its first root: the modules, and
// this program as /init.
func writeFirstRoot(path, modules string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := static(self); err != nil {
		return err
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if modules != "" {
		in, err := os.Open(modules)
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
	w := cpio.NewWriter(out)
	w.File(strings.TrimPrefix(inside.Path, "/"), program)
	return w.Close()
}

// static refuses a program that needs a loader: the first root has none.
func static(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is to be PID 1 of the guest and is not static: build it with CGO_ENABLED=0 (make guest)", program)
		}
	}
	return nil
}
