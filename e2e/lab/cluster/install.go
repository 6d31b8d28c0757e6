package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// install installs Portolan as a user does: import the image, apply deploy/, wait.
func (l *Lab) install(ctx context.Context, r record, images []build.Archive) error {
	p := plan.Of(r.Options)
	var files []string
	for _, i := range images {
		files = append(files, i.Path)
	}
	if err := l.importAll(ctx, p, files); err != nil {
		return err
	}
	l.say("%d images of deploy/ imported", len(files))
	dir, err := l.overlay(p)
	if err != nil {
		return err
	}
	// Objects of a kind that the same kustomization defines are refused until the
	// API server serves that kind.
	err = until(ctx, time.Minute, "apply "+dir, func() error {
		_, err := l.kubectl(ctx, "apply", "--server-side", "-k", dir)
		return err
	})
	if err != nil {
		return err
	}
	l.say("applied %s", dir)
	if err := l.waitRollouts(ctx); err != nil {
		return err
	}
	return l.waitNodesReady(ctx)
}

// waitRollouts waits for every workload of deploy/. If one does not come, the
// error says what its pods say.
func (l *Lab) waitRollouts(ctx context.Context) error {
	out, err := l.kubectl(ctx, "get", "daemonsets,deployments,statefulsets", "-A", "-o", `jsonpath={range .items[*]}{.metadata.namespace}/{.kind}/{.metadata.name}{"\n"}{end}`)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(3 * time.Minute)
	for _, w := range strings.Fields(out) {
		namespace, object, _ := strings.Cut(w, "/")
		left := max(time.Until(deadline), time.Second).Round(time.Second)
		if err := l.waitWorkload(ctx, namespace, object, left); err != nil {
			pods, _ := l.kubectl(context.WithoutCancel(ctx), "-n", namespace, "get", "pods", "-o", "wide")
			return fmt.Errorf("%w\n%s", err, pods)
		}
		l.say("%s rolled out", object)
	}
	return nil
}

// waitWorkload waits until a workload is as declared. kubectl's rollout status
// refuses DaemonSets that are updated on delete, such as OVS's.
func (l *Lab) waitWorkload(ctx context.Context, namespace, object string, limit time.Duration) error {
	if !strings.HasPrefix(object, "DaemonSet/") {
		_, err := l.kubectl(ctx, "-n", namespace, "rollout", "status", strings.ToLower(object), "--timeout="+limit.String())
		return err
	}
	return until(ctx, limit, object, func() error {
		out, err := l.kubectl(ctx, "-n", namespace, "get", object, "-o", "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.desiredNumberScheduled} {.status.numberReady}")
		f := strings.Fields(out)
		if err != nil {
			return err
		}
		if len(f) != 4 || f[0] != f[1] || f[2] == "0" || f[2] != f[3] {
			return fmt.Errorf("generation, observed, wanted and ready pods: %s", out)
		}
		return nil
	})
}

// Image rebuilds one image and imports it into all nodes. Pods that run the old
// one are not touched: that is for who asked.
func (l *Lab) Image(ctx context.Context, name string) error {
	return l.change(func(r record, p plan.Plan) error {
		archive := name
		if name == "portolan" {
			image, err := l.Builder.Portolan(ctx, r.Products.Base)
			if err != nil {
				return err
			}
			archive = image.Path
		} else if _, err := os.Stat(name); err != nil {
			return fmt.Errorf("image %q: neither \"portolan\" nor a docker-archive file: %w", name, err)
		}
		if err := l.importAll(ctx, p, []string{archive}); err != nil {
			return err
		}
		l.say("%s imported into %d nodes", name, len(p.Machines))
		return nil
	})
}
