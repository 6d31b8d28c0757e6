package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// PortolanImage is the name under which deploy/ asks for Portolan's image.
const PortolanImage = "ghcr.io/portolan-cni/portolan:dev"

// Archive is an image as a file.
type Archive struct {
	Tag  string
	Path string
}

// binaries are Portolan's programs: the directories of cmd/.
func (b Builder) binaries() ([]string, error) {
	mains, err := filepath.Glob(filepath.Join(b.Repo, "cmd", "*", "main.go"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range mains {
		out = append(out, filepath.Base(filepath.Dir(m)))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no cmd/*/main.go in %s: run from the checkout, or set PORTOLAN_REPO", b.Repo)
	}
	return out, nil
}

// Portolan builds Portolan's programs, and its image as deploy/Dockerfile says:
// FROM the base system, COPY bin/… from the checkout's root.
func (b Builder) Portolan(ctx context.Context, base string) (Archive, error) {
	dockerfile := filepath.Join(b.Repo, "deploy", "Dockerfile")
	if _, err := os.Stat(dockerfile); err != nil {
		return Archive{}, fmt.Errorf("portolan's image: %w (other choices: --cni standin, --cni none)", err)
	}
	start := time.Now()
	names, err := b.binaries()
	if err != nil {
		return Archive{}, err
	}
	log, err := b.LogFile("portolan")
	if err != nil {
		return Archive{}, err
	}
	defer log.Close()
	argv := []string{"nice", "-n", "5", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(b.Repo, "bin") + "/"}
	var parts []string
	for _, n := range names {
		argv = append(argv, "./cmd/"+n)
		parts = append(parts, filepath.Join(b.Repo, "bin", n))
	}
	if _, err := (proc.Cmd{Argv: argv, Dir: b.Repo, Env: goEnv, Log: log}).Output(ctx); err != nil {
		return Archive{}, err
	}
	content, err := cache.FileParts(append(parts, dockerfile)...)
	if err != nil {
		return Archive{}, err
	}
	deploy, err := deployParts(filepath.Join(b.Repo, "deploy"))
	if err != nil {
		return Archive{}, err
	}
	key := cache.KeyOf("portolan", append(append(content, deploy...), base)...)
	dir, err := b.Cache.Make(ctx, key, func(ctx context.Context, dir string) error {
		return b.bud(ctx, budInput{base: base, dockerfile: dockerfile, names: names, out: filepath.Join(dir, "portolan.tar"), log: log})
	})
	if err != nil {
		return Archive{}, fmt.Errorf("portolan's image (output in %s): %w", b.logPath("portolan"), err)
	}
	b.say("portolan's image made in %s", time.Since(start).Round(100*time.Millisecond))
	return Archive{Tag: PortolanImage, Path: filepath.Join(dir, "portolan.tar")}, nil
}

// deployParts makes the image depend on what else the Dockerfile may copy.
func deployParts(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return cache.FileParts(files...)
}

type budInput struct {
	base, dockerfile, out string
	names                 []string
	log                   *os.File
}

// bud runs buildah on a staged context: the checkout may hold gigabytes that
// the Dockerfile does not ask for.
func (b Builder) bud(ctx context.Context, in budInput) (err error) {
	stage, err := os.MkdirTemp(b.Cache.Dir, ".half-context-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	if err := os.Mkdir(filepath.Join(stage, "bin"), 0o755); err != nil {
		return err
	}
	for _, n := range in.names {
		if err := proc.Run(ctx, "cp", filepath.Join(b.Repo, "bin", n), filepath.Join(stage, "bin", n)); err != nil {
			return err
		}
	}
	if err := proc.Run(ctx, "cp", "-r", filepath.Join(b.Repo, "deploy"), filepath.Join(stage, "deploy")); err != nil {
		return err
	}
	// One storage for one base: an image left from another would be found by name.
	storage := filepath.Join(b.Cache.Dir, "buildah-"+filepath.Base(filepath.Dir(in.base)))
	buildah := func(args ...string) error {
		argv := append([]string{"buildah", "--root", storage, "--runroot", filepath.Join(storage, "run"), "--storage-driver", "overlay"}, args...)
		_, err := proc.Cmd{Argv: argv, Log: in.log}.Output(ctx)
		return err
	}
	if buildah("inspect", "--type", "image", BaseImage) != nil {
		if err := buildah("pull", "docker-archive:"+filepath.Join(filepath.Dir(in.base), "base.tar")); err != nil {
			return err
		}
	}
	if err := buildah("bud", "--isolation", "chroot", "--pull-never", "-f", in.dockerfile, "-t", PortolanImage, stage); err != nil {
		return err
	}
	if err := buildah("push", PortolanImage, "docker-archive:"+in.out+":"+PortolanImage); err != nil {
		return err
	}
	// Every build leaves the one before it without a name.
	return buildah("rmi", "--prune")
}
