package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// multusConf is what Multus writes on each node when it is ready: a .conf or a
// .conflist, which comes before Portolan's.
const multusConf = "/etc/cni/net.d/00-multus.conf*"

// installMultus installs Multus as deploy/multus says, over a Portolan that serves, and
// waits until every node's runtime would ask it first. Its API server is named: there
// are no services here.
func (l *Lab) installMultus(ctx context.Context, p plan.Plan) error {
	dir, err := l.multusOverlay(p)
	if err != nil {
		return err
	}
	if _, err := l.kubectl(ctx, "apply", "--server-side", "-k", dir); err != nil {
		return err
	}
	if err := l.waitRollouts(ctx); err != nil {
		return err
	}
	for _, n := range p.Machines {
		err := until(ctx, time.Minute, "Multus on "+n.Name, func() error {
			_, err := node.Run(ctx, n.Name, "sh", "-c", "test -s "+multusConf)
			return err
		})
		if err != nil {
			return err
		}
	}
	l.say("multus (%s) is asked first on every node", p.Multus)
	return nil
}

// multusAPI is the API server's address for Multus. Its thin form puts brackets around
// any, which Go accepts around IPv6 only since 1.25.2: the published image is older.
func multusAPI(p plan.Plan) string {
	addr := p.API().Addr()
	if p.Multus == plan.Thin && addr.Is4() {
		return netip.AddrFrom16(addr.As16()).String()
	}
	return addr.String()
}

func (l *Lab) multusOverlay(p plan.Plan) (string, error) {
	dir := filepath.Join(l.Dirs.State, "deploy-multus")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	relative, err := filepath.Rel(dir, filepath.Join(l.Builder.Repo, "deploy", "multus", p.Multus))
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
patches:
  - target: {kind: DaemonSet, name: multus}
    patch: |-
      - op: add
        path: /spec/template/spec/containers/0/env
        value:
          - {name: KUBERNETES_SERVICE_HOST, value: %q}
          - {name: KUBERNETES_SERVICE_PORT, value: "%d"}
`, relative, multusAPI(p), p.API().Port())
	return dir, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644)
}
