package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/guest/cpio"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// wanted are the directories and files of the kernel's modules that the image has:
// all of the network, of virtual functions and of what the guest stands on.
func wanted() []string {
	return []string{
		"net", "lib", "crypto", "arch/x86/crypto", "virt",
		"fs/9p", "fs/ext4", "fs/jbd2", "fs/mbcache.ko", "fs/netfs", "fs/overlayfs", "fs/nls", "fs/fuse",
		"drivers/block/virtio_blk.ko", "drivers/char/virtio_console.ko", "drivers/char/hw_random", "drivers/virtio", "drivers/vhost", "drivers/vdpa",
		"drivers/iommu", "drivers/vfio", "drivers/pci", "drivers/dca", "drivers/i2c/algos", "drivers/ptp", "drivers/uio", "drivers/infiniband/core", "drivers/infiniband/sw",
		"drivers/net/ethernet/intel/igb", "drivers/net/ethernet/intel/igbvf", "drivers/net/bonding", "drivers/net/geneve.ko", "drivers/net/vxlan",
		"drivers/net/veth.ko", "drivers/net/dummy.ko", "drivers/net/ifb.ko", "drivers/net/macvlan.ko", "drivers/net/macvtap.ko", "drivers/net/ipvlan",
		"drivers/net/tun.ko", "drivers/net/tap.ko", "drivers/net/vrf.ko", "drivers/net/virtio_net.ko", "drivers/net/net_failover.ko", "drivers/net/wireguard",
	}
}

// needed before the image is mounted: its disk, its file system, shares and the link.
func needed() []string {
	return []string{"virtio_pci", "virtio_blk", "ext4", "virtio_console", "9pnet_virtio", "9p", "virtio_rng"}
}

// modules keeps what is wanted of a tree of modules, uncompressed (an emulated
// processor is slow at that), and gives the needed ones, in order of loading.
func modules(ctx context.Context, tree string) ([]string, error) {
	byName := map[string]string{}
	var drop, pack []string
	err := filepath.WalkDir(filepath.Join(tree, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(filepath.Join(tree, "kernel"), path)
		if err != nil {
			return err
		}
		plain := strings.TrimSuffix(rel, ".xz")
		if !slices.ContainsFunc(wanted(), func(w string) bool { return plain == w || strings.HasPrefix(plain, w+"/") }) {
			drop = append(drop, path)
			return nil
		}
		if plain != rel {
			pack = append(pack, path)
		}
		byName[moduleName(plain)] = filepath.Join(tree, "kernel", plain)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range drop {
		if err := os.Remove(f); err != nil {
			return nil, err
		}
	}
	for chunk := range slices.Chunk(pack, 100) {
		if err := proc.Run(ctx, append([]string{"xz", "-d"}, chunk...)...); err != nil {
			return nil, err
		}
	}
	builtin, err := os.ReadFile(filepath.Join(tree, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Fields(string(builtin)) {
		byName[moduleName(line)] = ""
	}
	known, err := readModules(byName)
	if err != nil {
		return nil, err
	}
	return known.loadOrder(needed())
}

// moduleName is the name by which a file's module is known: the kernel writes _ for -.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(file), ".ko"), "-", "_")
}

// module is what a file says of its module.
type module struct {
	file    string   // empty: the kernel has it built in
	depends []string // names of modules that the kernel refuses to do without
	soft    []string // names or aliases that modprobe would load before
	aliases []string
}

// kernelModules are modules by name.
type kernelModules map[string]module

// readModules reads files, by the names of their modules; "" is a built-in one.
func readModules(files map[string]string) (kernelModules, error) {
	out := kernelModules{}
	for name, file := range files {
		out[name] = module{}
		if file == "" {
			continue
		}
		text, err := modinfo(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		m := parseModinfo(text)
		m.file = file
		out[name] = m
	}
	return out, nil
}

// loadOrder lists the files of modules and of what they need, that first.
func (k kernelModules) loadOrder(names []string) ([]string, error) {
	var out []string
	done := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		name = strings.ReplaceAll(name, "-", "_")
		if done[name] {
			return nil
		}
		done[name] = true
		m, ok := k[name]
		if !ok {
			return fmt.Errorf("the kernel has no module %s, or the list of wanted directories leaves it out", name)
		}
		for _, before := range slices.Concat(k.resolve(m.soft), m.depends) {
			if err := add(before); err != nil {
				return fmt.Errorf("for %s: %w", name, err)
			}
		}
		if m.file != "" {
			out = append(out, m.file)
		}
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// resolve gives the modules that names and aliases stand for. One that nobody
// has is left out, as by modprobe: a built-in module does not say its aliases.
func (k kernelModules) resolve(soft []string) []string {
	var out []string
	for _, s := range soft {
		if _, ok := k[strings.ReplaceAll(s, "-", "_")]; ok {
			out = append(out, s)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(k)) {
			if slices.Contains(k[name].aliases, s) {
				out = append(out, name)
			}
		}
	}
	return out
}

// modinfo is the section of a module that says what it is.
func modinfo(file string) ([]byte, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo: not a module")
	}
	return section.Data()
}

func parseModinfo(text []byte) module {
	var m module
	for _, entry := range bytes.Split(text, []byte{0}) {
		key, value, _ := strings.Cut(string(entry), "=")
		switch key {
		case "depends":
			m.depends = strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
		case "alias":
			m.aliases = append(m.aliases, value)
		case "softdep":
			pre, _, _ := strings.Cut(value, "post:")
			if _, names, ok := strings.Cut(pre, "pre:"); ok {
				m.soft = append(m.soft, strings.Fields(names)...)
			}
		}
	}
	return m
}

// writeInitrd writes modules as files whose names sort in the order of loading.
func writeInitrd(path string, files []string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := cpio.NewWriter(f)
	w.Dir("modules")
	for i, m := range files {
		content, err := os.ReadFile(m)
		if err != nil {
			return err
		}
		w.File(fmt.Sprintf("modules/%03d-%s", i, filepath.Base(m)), content)
	}
	return w.Close()
}
