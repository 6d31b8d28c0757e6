package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// KubectlArgs is the command line that runs kubectl as administrator, from the
// bridges' namespace, which no node can break.
func (l *Lab) KubectlArgs(kube string, args ...string) []string {
	out := []string{"nsenter", "--net=" + wire.Path(wire.LAN()), filepath.Join(kube, "kubectl"), "--kubeconfig=" + l.Kubeconfig()}
	return append(out, args...)
}

// PortolanArgs is the command line that runs the checkout's bin/portolan as
// administrator, from where kubectl is run.
func (l *Lab) PortolanArgs(args ...string) []string {
	out := []string{"env", "KUBECONFIG=" + l.Kubeconfig(), "nsenter", "--net=" + wire.Path(wire.LAN()), filepath.Join(l.Builder.Repo, "bin", "portolan")}
	return append(out, args...)
}

// Kube is the directory of the Kubernetes programs of the lab that is up.
func (l *Lab) Kube() (string, error) {
	r, err := l.current()
	return r.Products.Kube, err
}

// kubectl runs kubectl while the lab is on its way up.
func (l *Lab) kubectl(ctx context.Context, args ...string) (string, error) {
	r, err := l.read()
	if err != nil {
		return "", err
	}
	return proc.Output(ctx, l.KubectlArgs(r.Products.Kube, args...)...)
}

// until asks again until ok, an error or the deadline.
func until(ctx context.Context, limit time.Duration, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		case <-tick.C:
		}
	}
}

// waitRegistered waits for the API server and every node's object, and labels
// the control plane, which kubelet may not do itself.
func (l *Lab) waitRegistered(ctx context.Context, p plan.Plan) error {
	err := until(ctx, 3*time.Minute, "API server and nodes", func() error {
		out, err := l.kubectl(ctx, "get", "nodes", "-o", "name")
		if err != nil {
			return err
		}
		if got := len(strings.Fields(out)); got < len(p.Machines) {
			return fmt.Errorf("%d of %d nodes are registered (kubelet's log is in %s/nodes/NODE/log)", got, len(p.Machines), l.Dirs.State)
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = l.kubectl(ctx, "label", "node", p.Machines[0].Name, "node-role.kubernetes.io/control-plane=", "--overwrite")
	return err
}

// waitKubelet waits until a booted node's kubelet answers. The node's Ready
// condition would not do: it stays true for 40 s after a crash.
func (l *Lab) waitKubelet(ctx context.Context, name string) error {
	return until(ctx, 2*time.Minute, "kubelet of "+name, func() error {
		_, err := l.kubectl(ctx, "get", "--raw", "/api/v1/nodes/"+name+"/proxy/healthz", "--request-timeout=5s")
		return err
	})
}

func (l *Lab) waitNodesReady(ctx context.Context) error {
	_, err := l.kubectl(ctx, "wait", "--for=condition=Ready", "node", "--all", "--timeout=180s")
	return err
}

// importAll imports archives into every node; the nodes work at the same time.
func (l *Lab) importAll(ctx context.Context, p plan.Plan, archives []string) error {
	errs := make([]error, len(p.Machines))
	var wg sync.WaitGroup
	for i, n := range p.Machines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = importImages(ctx, n.Name, archives)
		}()
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// importImages feeds archives to a node's containerd by its standard input: a
// node need not see the cache.
func importImages(ctx context.Context, name string, archives []string) error {
	err := until(ctx, time.Minute, "containerd of "+name, func() error {
		_, err := node.Run(ctx, name, "ctr", "version")
		return err
	})
	if err != nil {
		return err
	}
	for _, a := range archives {
		if err := importImage(ctx, name, a); err != nil {
			return fmt.Errorf("import %s into %s: %w", filepath.Base(a), name, err)
		}
	}
	return nil
}

func importImage(ctx context.Context, name, archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	argv, err := node.Enter(name, []string{"ctr", "-n", "k8s.io", "images", "import", "-"})
	if err != nil {
		return err
	}
	_, err = proc.Cmd{Argv: argv, Stdin: f}.Output(ctx)
	return err
}
