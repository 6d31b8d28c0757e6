package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// kubeVersion is the newest that the module proxy serves whole; go.mod has its
// staging modules as v0.34.4.
const kubeVersion = "v1.34.4"

// kubeNames are the programs in the one kube binary (e2e/lab/kube).
var kubeNames = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"}

// kubeFlags give a stripped, static and reproducible build that knows its version.
func kubeFlags() []string {
	x := []string{"-s", "-w"}
	parts := strings.Split(strings.TrimPrefix(kubeVersion, "v"), ".")
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, kv := range [][2]string{{"gitVersion", kubeVersion}, {"gitMajor", parts[0]}, {"gitMinor", parts[1]}, {"gitTreeState", "clean"}, {"gitCommit", "unknown"}} {
			x = append(x, "-X", pkg+"."+kv[0]+"="+kv[1])
		}
	}
	return []string{"-trimpath", "-ldflags", strings.Join(x, " ")}
}

// goEnv keeps a build static and independent of the checkout's state.
var goEnv = []string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false"}

// moduleDir is the lab's own Go module.
func (b Builder) moduleDir() string { return filepath.Join(b.Repo, "e2e", "lab") }

// moduleParts are the parts of a key that every product of the lab's module shares.
func (b Builder) moduleParts() ([]string, error) {
	files, err := cache.FileParts(filepath.Join(b.moduleDir(), "go.mod"), filepath.Join(b.moduleDir(), "go.sum"))
	if err != nil {
		return nil, err
	}
	return append(append(files, kubeFlags()...), append(goEnv, runtime.Version())...), nil
}

func (b Builder) kubeStep() (Step, error) {
	parts, err := b.moduleParts()
	if err != nil {
		return Step{}, err
	}
	sources, err := cache.FileParts(filepath.Join(b.moduleDir(), "kube", "main.go"))
	if err != nil {
		return Step{}, err
	}
	return Step{
		Key: cache.KeyOf("kube", append(parts, sources...)...), What: "Kubernetes " + kubeVersion + " and agnhost from Go modules",
		Cost: 14 * time.Minute, Fill: b.fillKube,
	}, nil
}

// Kube builds Kubernetes' programs and gives their directory.
func (b Builder) Kube(ctx context.Context) (string, error) {
	s, err := b.kubeStep()
	if err != nil {
		return "", err
	}
	return b.Cache.Path(s.Key), b.Run(ctx, []Step{s})
}

func (b Builder) fillKube(ctx context.Context, dir string) error {
	log, err := b.LogFile("kube")
	if err != nil {
		return err
	}
	defer log.Close()
	for _, p := range [][2]string{{"agnhost", "k8s.io/kubernetes/test/images/agnhost"}, {"kube", "./kube"}} {
		argv := append([]string{"nice", "-n", "5", "go", "build"}, kubeFlags()...)
		argv = append(argv, "-o", filepath.Join(dir, p[0]), p[1])
		if _, err := (proc.Cmd{Argv: argv, Dir: b.moduleDir(), Env: goEnv, Log: log}).Output(ctx); err != nil {
			return err
		}
	}
	for _, name := range kubeNames {
		if err := os.Symlink("kube", filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	module, err := (proc.Cmd{Argv: []string{"go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"}, Dir: b.moduleDir(), Env: goEnv}).Output(ctx)
	if err != nil {
		return err
	}
	return b.keepAgnhostFiles(strings.TrimSpace(module), dir)
}

// keepAgnhostFiles copies the certificate that agnhost's porter serves.
func (b Builder) keepAgnhostFiles(module, dir string) error {
	for _, f := range []string{"localhost.crt", "localhost.key"} {
		data, err := os.ReadFile(filepath.Join(module, "test", "images", "agnhost", "porter", f))
		if err != nil {
			return fmt.Errorf("agnhost: %w", err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// UpstreamTests builds the slim upstream e2e suite and gives the test binary's path.
func (b Builder) UpstreamTests(ctx context.Context) (string, error) {
	parts, err := b.moduleParts()
	if err != nil {
		return "", err
	}
	sources, err := cache.FileParts(filepath.Join(b.moduleDir(), "upstream", "upstream_test.go"))
	if err != nil {
		return "", err
	}
	s := Step{Key: cache.KeyOf("upstream", append(parts, sources...)...), What: "upstream's network tests", Cost: 6 * time.Minute,
		Fill: func(ctx context.Context, dir string) error {
			log, err := b.LogFile("upstream")
			if err != nil {
				return err
			}
			defer log.Close()
			argv := append([]string{"nice", "-n", "5", "go", "test", "-c", "-tags", "upstream"}, kubeFlags()...)
			argv = append(argv, "-o", filepath.Join(dir, "upstream.test"), "./upstream")
			_, err = proc.Cmd{Argv: argv, Dir: b.moduleDir(), Env: goEnv, Log: log}.Output(ctx)
			return err
		}}
	if err := b.Run(ctx, []Step{s}); err != nil {
		return "", err
	}
	return filepath.Join(b.Cache.Path(s.Key), "upstream.test"), nil
}
