// Package guest makes and runs virtual machines with real Linux kernels, for what
// the machine's own kernel cannot show: SR-IOV, the kernel datapath of Open
// vSwitch, TC offload. QEMU emulates the processor (no KVM is needed), PCI with
// an IOMMU, and two igb NICs whose cable is a hub.
//
//	Debian packages ──debs──> qemu ────────────────────────┐
//	                     └──> image: vmlinuz, modules, ext4 ┼──Run──> a command in the guest:
//	linux-source, patch ──chroot, make──> kernel ───────────┘        its output, its exit code
//
// All products are entries of the lab's cache, keyed by the versions of the
// packages and the files of this checkout that they are made from. Nothing is
// installed on the machine; what runs of it is apt-get, dpkg-deb, xz and mke2fs.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/debs"
)

// suite has QEMU 10.0, Linux 6.12, OVN 25.03 and OVS 3.5. (QEMU 10.0.2 of
// bookworm-backports shows VFs that never get a link.)
const suite = "trixie"

func qemuSet() debs.Set {
	return debs.Set{Name: "qemu", Packages: []string{"qemu-system-x86"},
		// What would configure an installed system.
		Without: []string{"adduser", "base-*", "debconf", "dpkg", "init-system-helpers", "libpam*", "libperl*", "login*", "mount", "passwd", "perl*", "systemd*", "util-linux"}}
}

func imageSet() debs.Set {
	return debs.Set{Name: "image", Packages: []string{
		"bash", "busybox-static", "conntrack", "coreutils", "dash", "ethtool", "findutils", "grep", "iperf3", "iproute2", "iptables", "iputils-ping",
		"kmod", "mawk", "netbase", "nftables", "openvswitch-switch", "ovn-central", "ovn-common", "ovn-host", "pciutils", "procps", "sed", "tcpdump", "util-linux"},
		Without: []string{"adduser", "debconf", "dpkg", "libpython3*", "login*", "lsb-release", "media-types", "perl*", "python3*", "systemd", "tzdata"}}
}

func kernelSet() debs.Set {
	return debs.Set{Name: "linux-image", Packages: []string{"linux-image-amd64"}, Only: []string{"linux-image-*"}}
}

func sourceSet() debs.Set {
	return debs.Set{Name: "linux-source", Packages: []string{"linux-source-6.12"}, Only: []string{"linux-source-*"}}
}

func toolchainSet() debs.Set {
	return debs.Set{Name: "toolchain", Packages: []string{
		"base-files", "bash", "bc", "binutils", "bison", "coreutils", "dash", "diffutils", "findutils", "flex", "gcc", "grep", "gzip",
		"libc6-dev", "libelf-dev", "make", "mawk", "patch", "perl-base", "sed", "tar", "xz-utils"},
		Without: []string{"adduser", "debconf", "libpam*", "login*", "passwd", "systemd*"}}
}

// Kernel names one of the kernels.
type Kernel string

// The kernels. Debian's lacks NET_TC_SKB_EXT, so that each connection-tracked
// flow stays in the OVS datapath, and netdevsim; Own has both.
const (
	Debian Kernel = "debian"
	Own    Kernel = "own"
)

// ErrNotBuilt says that the own kernel is not in the cache. It is slow to build, so
// it is never built unasked.
var ErrNotBuilt = errors.New("the own kernel is not built: make guest-kernel (15 minutes on two idle cores)")

// Builder makes what guests need.
type Builder struct {
	build.Builder
}

// Parts are the files that a guest is started from.
type Parts struct {
	QEMU    string // root directory of QEMU and its libraries
	Vmlinuz string
	Initrd  string // archive of the modules that the image needs; empty: the kernel has them built in
	Image   string // ext4
}

// steps are all products, by the versions that the mirror had when it was last asked.
type steps struct{ qemu, image, kernel build.Step }

func (b Builder) suite() debs.Suite {
	return debs.Suite{Name: suite, Mirror: build.Mirror(), Cache: b.Cache}
}

// files gives files of the checkout as parts of a key: whoever changes how a
// product is made gets another product.
func (b Builder) files(names ...string) ([]string, error) {
	for i, n := range names {
		names[i] = filepath.Join(b.Repo, "e2e", n)
	}
	return cache.FileParts(names...)
}

func (b Builder) steps(ctx context.Context, again bool) (steps, error) {
	versions := map[string][]debs.Package{}
	for _, set := range []debs.Set{qemuSet(), imageSet(), kernelSet(), sourceSet(), toolchainSet()} {
		pkgs, err := b.suite().Resolve(ctx, set, again)
		if err != nil {
			return steps{}, err
		}
		versions[set.Name] = pkgs
	}
	rootFiles, err := b.files("lab/guest/image.go", "lab/guest/modules.go")
	if err != nil {
		return steps{}, err
	}
	kernelFiles, err := b.files("lab/guest/kernel.go", "offload/kernel.config", "offload/netdevsim-offload.patch")
	if err != nil {
		return steps{}, err
	}
	qemu, image, linux := versions["qemu"], versions["image"], versions["linux-image"]
	source, tools := versions["linux-source"], versions["toolchain"]
	return steps{
		qemu: build.Step{Key: cache.KeyOf("guest-qemu", debs.Parts(qemu)...), What: "QEMU " + debs.Version(qemu, "qemu-system-x86"), Cost: 30 * time.Second,
			Fill: func(ctx context.Context, dir string) error {
				return b.suite().Unpack(ctx, qemu, filepath.Join(dir, "root"))
			}},
		image: build.Step{Key: cache.KeyOf("guest-image", slices.Concat(rootFiles, debs.Parts(image), debs.Parts(linux))...),
			What: "Debian " + suite + " with Linux " + debs.Version(linux, "linux-image-amd64"), Cost: 90 * time.Second,
			Fill: func(ctx context.Context, dir string) error { return b.fillImage(ctx, dir, slices.Concat(image, linux)) }},
		kernel: build.Step{Key: cache.KeyOf("guest-kernel", slices.Concat(kernelFiles, debs.Parts(source), debs.Parts(tools))...),
			What: "Linux " + debs.Version(source, "linux-source-6.12") + " of our own configuration", Cost: 18 * time.Minute,
			Fill: func(ctx context.Context, dir string) error {
				return b.fillKernel(ctx, dir, slices.Concat(source, tools))
			}},
	}, nil
}

// Make makes what is missing for a guest with the kernel. The own kernel is built
// by BuildKernel only: without it Make gives ErrNotBuilt.
func (b Builder) Make(ctx context.Context, k Kernel) (Parts, error) {
	s, err := b.made(ctx, func(s steps) ([]build.Step, error) {
		if k == Own && !b.Cache.Has(s.kernel.Key) {
			return nil, ErrNotBuilt
		}
		return []build.Step{s.qemu, s.image}, nil
	})
	if err != nil {
		return Parts{}, err
	}
	image := b.Cache.Path(s.image.Key)
	p := Parts{QEMU: filepath.Join(b.Cache.Path(s.qemu.Key), "root"), Image: filepath.Join(image, "root.ext4")}
	switch k {
	case Debian:
		p.Vmlinuz, p.Initrd = filepath.Join(image, "vmlinuz"), filepath.Join(image, "modules.cpio")
	case Own:
		p.Vmlinuz = filepath.Join(b.Cache.Path(s.kernel.Key), "bzImage")
	default:
		return Parts{}, fmt.Errorf("no kernel %q: there are %s and %s", k, Debian, Own)
	}
	return p, nil
}

// BuildKernel builds the own kernel, and gives the entry's directory.
func (b Builder) BuildKernel(ctx context.Context) (string, error) {
	s, err := b.made(ctx, func(s steps) ([]build.Step, error) { return []build.Step{s.kernel}, nil })
	return b.Cache.Path(s.kernel.Key), err
}

// Refresh asks the mirror for versions anew, for all products.
func (b Builder) Refresh(ctx context.Context) error {
	_, err := b.steps(ctx, true)
	return err
}

// made makes the chosen steps. The mirror may have dropped the versions that were
// resolved: then they are resolved again, once.
func (b Builder) made(ctx context.Context, choose func(steps) ([]build.Step, error)) (steps, error) {
	if os.Geteuid() != 0 {
		return steps{}, fmt.Errorf("guests are made and run as root (now uid %d)", os.Geteuid())
	}
	for again := false; ; again = true {
		s, err := b.steps(ctx, again)
		if err != nil {
			return steps{}, err
		}
		chosen, err := choose(s)
		if err != nil {
			return steps{}, err
		}
		err = b.Run(ctx, chosen)
		if again || !errors.Is(err, debs.ErrFetch) {
			return s, err
		}
		fmt.Fprintln(b.Out, "the mirror lacks versions that it had: asking it again")
	}
}
