package build

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/image"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// multusPrograms are Multus's: as a plugin by itself, as a daemon with the plugin
// that calls it, and what installs either on a node. passthru comes with both.
var multusPrograms = []string{"multus", "multus-daemon", "multus-shim", "install_multus", "thin_entrypoint", "passthru-cni"}

// Images of Multus that deploy/multus names.
const (
	MultusThinImage  = "ghcr.io/k8snetworkplumbingwg/multus-cni:v4.2.2"
	MultusThickImage = MultusThinImage + "-thick"
)

// multusModule holds their version, as tools of a module of their own (e2e/multus): what
// they are made from is nobody else's.
const multusModule = "gopkg.in/k8snetworkplumbingwg/multus-cni.v4"

// Multus builds Multus and gives the directory of its programs.
func (b Builder) Multus(ctx context.Context) (string, error) {
	s, err := b.multusStep()
	if err != nil {
		return "", err
	}
	return b.Cache.Path(s.Key), b.Run(ctx, []Step{s})
}

// MultusImage builds Multus and puts its programs into an image, at the paths and under
// the names of the published ones.
func (b Builder) MultusImage(ctx context.Context) (Archive, error) {
	programs, err := b.multusStep()
	if err != nil {
		return Archive{}, err
	}
	dir := b.Cache.Path(programs.Key)
	s := Step{Key: cache.KeyOf("multus-image", "1", programs.Key.Hash, MultusThinImage, MultusThickImage), What: "Multus's image", Cost: 5 * time.Second,
		Fill: func(_ context.Context, out string) error { return b.fillMultusImage(dir, out) }}
	if err := b.Run(ctx, []Step{programs, s}); err != nil {
		return Archive{}, err
	}
	return Archive{Tag: MultusThinImage, Path: filepath.Join(b.Cache.Path(s.Key), "multus.tar")}, nil
}

func (b Builder) fillMultusImage(programs, out string) error {
	work, err := os.MkdirTemp(b.Cache.Dir, ".half-multus-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	root := image.Root{Dir: work}
	for from, to := range map[string][]string{
		"multus": {"usr/src/multus-cni/bin/multus"}, "multus-daemon": {"usr/src/multus-cni/bin/multus-daemon"},
		"multus-shim": {"usr/src/multus-cni/bin/multus-shim"}, "passthru-cni": {"usr/src/multus-cni/bin/passthru"},
		"install_multus":  {"usr/src/multus-cni/bin/install_multus", "install_multus"},
		"thin_entrypoint": {"usr/src/multus-cni/bin/thin_entrypoint", "thin_entrypoint"},
	} {
		for _, t := range to {
			if err := root.File(filepath.Join(programs, from), t); err != nil {
				return err
			}
		}
	}
	for _, d := range []string{"etc", "tmp", "run", "var"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			return err
		}
	}
	// The runtime says /var/run/netns; what is mounted is /run/netns.
	if err := root.Link("/run", "var/run"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, "etc/passwd"), []byte("root:x:0:0:root:/:/bin/false\n"), 0o644); err != nil {
		return err
	}
	return image.WriteArchive(work, filepath.Join(out, "multus.tar"), image.Config{Tags: []string{MultusThinImage, MultusThickImage}, Entrypoint: []string{"/thin_entrypoint"}})
}

func (b Builder) multusStep() (Step, error) {
	module := filepath.Join(b.Repo, "e2e", "multus")
	parts, err := cache.FileParts(filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"))
	if err != nil {
		return Step{}, err
	}
	return Step{Key: cache.KeyOf("multus", append(append(parts, goEnv...), runtime.Version())...), What: "Multus from Go modules", Cost: 90 * time.Second,
		Fill: func(ctx context.Context, dir string) error {
			log, err := b.LogFile("multus")
			if err != nil {
				return err
			}
			defer log.Close()
			argv := []string{"nice", "-n", "5", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/"}
			for _, p := range multusPrograms {
				argv = append(argv, multusModule+"/cmd/"+p)
			}
			_, err = proc.Cmd{Argv: argv, Dir: module, Env: goEnv, Log: log}.Output(ctx)
			return err
		}}, nil
}
