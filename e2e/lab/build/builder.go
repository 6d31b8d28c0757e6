// Package build makes what a lab runs, once, into the cache: Kubernetes and
// agnhost from Go modules, the base system with OVN and OVS from Debian
// packages, and the container images. Each product is keyed by everything it
// is made from, so a warm lab builds nothing, and says what it builds when cold.
//
//	go.mod, go.sum, kube/ ──go build──> kube, agnhost ─┐
//	Debian packages ──────mmdebstrap──> base ──────────┼──> images (docker-archive)
//	deploy/Dockerfile, bin/ ──buildah──────────────────┘
package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
)

// Builder makes products into a cache.
type Builder struct {
	Repo  string // root of the checkout
	Cache cache.Store
	Log   string    // directory for the output of builds
	Out   io.Writer // progress lines
}

// Products are the finished paths that a lab uses.
type Products struct {
	Kube   string   `json:"kube"`   // directory with kube and its names
	Base   string   `json:"base"`   // root directory of the base system
	Images []string `json:"images"` // archives to import into each node
}

// Step is one product to make, with its rough cost when cold.
type Step struct {
	Key  cache.Key
	What string
	Cost time.Duration // on two idle cores
	Fill func(ctx context.Context, dir string) error
}

// Make makes everything that is missing and prints what is built and what is left.
func (b Builder) Make(ctx context.Context) (Products, error) {
	kube, err := b.kubeStep()
	if err != nil {
		return Products{}, err
	}
	base := b.baseStep()
	images, err := b.imagesStep()
	if err != nil {
		return Products{}, err
	}
	steps := []Step{kube, base, images}
	if err := b.Run(ctx, steps); err != nil {
		return Products{}, err
	}
	archives, err := filepath.Glob(filepath.Join(b.Cache.Path(images.Key), "*.tar"))
	if err != nil {
		return Products{}, err
	}
	if len(archives) == 0 {
		return Products{}, fmt.Errorf("images: no archive in %s: remove it and run again", b.Cache.Path(images.Key))
	}
	return Products{Kube: b.Cache.Path(kube.Key), Base: filepath.Join(b.Cache.Path(base.Key), "root"), Images: archives}, nil
}

// Run makes the missing steps in order. One at a time: each uses all cores.
func (b Builder) Run(ctx context.Context, steps []Step) error {
	var missing []Step
	for _, s := range steps {
		if !b.Cache.Has(s.Key) {
			missing = append(missing, s)
		}
	}
	for i, s := range missing {
		var left []string
		cost := s.Cost
		for _, later := range missing[i+1:] {
			left = append(left, later.Key.Name)
			cost += later.Cost
		}
		after := "then done"
		if len(left) > 0 {
			after = "then " + strings.Join(left, ", ")
		}
		b.say("build %d/%d: %s: %s (%s; up to %s from an empty cache)", i+1, len(missing), s.Key.Name, s.What, after, cost)
		start := time.Now()
		stop := b.heartbeat(s.Key.Name, start)
		_, err := b.Cache.Make(ctx, s.Key, s.Fill)
		stop()
		if err != nil {
			return fmt.Errorf("build %s (its output is in %s): %w", s.Key.Name, b.logPath(s.Key.Name), err)
		}
		b.say("build %d/%d: %s made in %s", i+1, len(missing), s.Key.Name, time.Since(start).Round(time.Second))
	}
	return nil
}

// heartbeat prints a line each half minute, so that a long build is seen to live.
func (b Builder) heartbeat(name string, start time.Time) func() {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(30 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				b.say("build %s: %s so far", name, time.Since(start).Round(time.Second))
			}
		}
	}()
	return func() { close(done) }
}

func (b Builder) say(format string, args ...any) { fmt.Fprintf(b.Out, format+"\n", args...) }

func (b Builder) logPath(name string) string { return filepath.Join(b.Log, "build-"+name+".log") }

// LogFile opens the file that holds the output of a build.
func (b Builder) LogFile(name string) (*os.File, error) {
	if err := os.MkdirAll(b.Log, 0o755); err != nil {
		return nil, err
	}
	return os.Create(b.logPath(name))
}
