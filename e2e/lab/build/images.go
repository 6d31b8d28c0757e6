package build

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/image"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// Tags as kubelet, containerd and the tests of Kubernetes 1.34 ask for them.
const (
	PauseImage   = "registry.k8s.io/pause:3.10.1"
	AgnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.56"
	BusyboxImage = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
)

// tools go into agnhost's image: what upstream's and Portolan's tests run in
// pods. Left the program here, right its name there. dash is sh because
// Debian's busybox sh prefers its own applets to what is in PATH.
var tools = [][2]string{{"dash", "sh"}, {"bash", "bash"}, {"curl", "curl"}, {"dig", "dig"}, {"ss", "ss"}, {"iperf3", "iperf3"},
	{"nc.openbsd", "nc"}, {"ping", "ping"}, {"ip", "ip"}, {"tcpdump", "tcpdump"}, {"ethtool", "ethtool"}, {"getent", "getent"},
	{"arping", "arping"}, {"nft", "nft"}}

func (b Builder) imagesStep() (Step, error) {
	kube, err := b.kubeStep()
	if err != nil {
		return Step{}, err
	}
	parts, err := cache.FileParts(filepath.Join(b.moduleDir(), "pause", "main.go"))
	if err != nil {
		return Step{}, err
	}
	parts = append(parts, "1", kube.Key.Hash, PauseImage, AgnhostImage, BusyboxImage)
	for _, t := range tools {
		parts = append(parts, t[0], t[1])
	}
	return Step{Key: cache.KeyOf("images", parts...), What: "pause, agnhost and busybox images", Cost: 10 * time.Second,
		Fill: func(ctx context.Context, dir string) error { return b.fillImages(ctx, b.Cache.Path(kube.Key), dir) }}, nil
}

func (b Builder) fillImages(ctx context.Context, kube, dir string) error {
	work, err := os.MkdirTemp(b.Cache.Dir, ".half-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	pause := image.Root{Dir: filepath.Join(work, "pause")}
	if err := os.MkdirAll(pause.Dir, 0o755); err != nil {
		return err
	}
	argv := []string{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(pause.Dir, "pause"), "./pause"}
	if _, err := (proc.Cmd{Argv: argv, Dir: b.moduleDir(), Env: goEnv}).Output(ctx); err != nil {
		return err
	}
	agnhost := image.Root{Dir: filepath.Join(work, "agnhost")}
	if err := fillAgnhost(ctx, agnhost, kube); err != nil {
		return err
	}
	busybox := image.Root{Dir: filepath.Join(work, "busybox")}
	if err := busybox.Users(); err != nil {
		return err
	}
	if err := busybox.Busybox(ctx); err != nil {
		return err
	}
	for _, w := range []struct {
		root   image.Root
		config image.Config
	}{
		{pause, image.Config{Tags: []string{PauseImage}, Entrypoint: []string{"/pause"}, User: "65535:65535"}},
		{agnhost, image.Config{Tags: []string{AgnhostImage}, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}},
		{busybox, image.Config{Tags: []string{BusyboxImage}, Cmd: []string{"sh"}}},
	} {
		if err := image.WriteArchive(w.root.Dir, filepath.Join(dir, filepath.Base(w.root.Dir)+".tar"), w.config); err != nil {
			return err
		}
	}
	return nil
}

func fillAgnhost(ctx context.Context, r image.Root, kube string) error {
	if err := r.Users(); err != nil {
		return err
	}
	if err := r.Busybox(ctx); err != nil {
		return err
	}
	for _, t := range tools {
		if err := r.Program(ctx, t[0], t[1]); err != nil {
			return err
		}
	}
	if err := r.Link("/usr/bin/sh", "bin/sh"); err != nil {
		return err
	}
	for from, to := range map[string]string{"agnhost": "agnhost", "localhost.crt": "localhost.crt", "localhost.key": "localhost.key"} {
		if err := r.File(filepath.Join(kube, from), to); err != nil {
			return err
		}
	}
	// Name services are loaded by glibc at run time, so ldd does not name them.
	for _, pattern := range []string{"libnss_dns", "libnss_files"} {
		libs, err := filepath.Glob("/lib/x86_64-linux-gnu/" + pattern + ".so*")
		if err != nil {
			return err
		}
		for _, lib := range libs {
			if err := r.File(lib, lib); err != nil {
				return err
			}
		}
	}
	return r.Link("agnhost", "agnhost-2")
}
