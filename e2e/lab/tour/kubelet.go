package tour

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// kubelet shows that what goes through the pods' kubelets arrives: a question
// asked by a program started in east is found in the log of west.
func (g *guide) kubelet(ctx context.Context) error {
	word := fmt.Sprintf("tour-%d", time.Now().Unix())
	said, err := g.show(ctx, "kubectl", "-n", namespace, "exec", "east", "--", "curl", "-sS", "-m", "5",
		fmt.Sprintf("http://%s:%d/echo?msg=%s", g.west.Addr, webPort, word))
	g.gap()
	g.claim(equal("kubectl exec in east: west's answer", word, strings.TrimSpace(said), err))
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "logs", "west", "--tail=4"); err != nil {
		return err
	}
	log, err := g.lab(ctx, "kubectl", "-n", namespace, "logs", "west")
	g.gap()
	g.claim(claim{what: "kubectl logs of west: the question", want: "is in it", got: presence(strings.Contains(log, word)), err: err})
	for _, p := range []pod{g.east, g.east2, g.west} {
		said, err := g.lab(ctx, "kubectl", "-n", namespace, "exec", p.Name, "--", "hostname")
		g.claim(equal("kubectl exec "+p.Name+" -- hostname", p.Name, strings.TrimSpace(said), err))
	}
	return nil
}

func presence(found bool) string {
	if found {
		return "is in it"
	}
	return "is not in it"
}

// static gives ovn-worker's kubelet a pod as a file, asks it, and takes it away.
func (g *guide) static(ctx context.Context) error {
	manifest, err := os.Open(filepath.Join(g.root, "e2e/demo/static.yaml"))
	if err != nil {
		return err
	}
	defer manifest.Close()
	args := []string{"exec", "ovn-worker", "--", "dd", "status=none", "of=" + staticFile}
	g.command("bin/lab " + typed(args) + " < e2e/demo/static.yaml")
	defer g.removeStatic(ctx)
	if _, err := (proc.Cmd{Argv: append([]string{filepath.Join(g.root, "bin/lab")}, args...), Dir: g.root, Stdin: manifest}).Output(ctx); err != nil {
		return err
	}
	const name = "static-ovn-worker"
	ready := func() (bool, error) {
		_, err := g.lab(ctx, "kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=20s")
		return err == nil, err
	}
	if err := eventually(ctx, 40*time.Second, ready); err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "get", "pod", name, "-o", "wide"); err != nil {
		return err
	}
	text, err := g.lab(ctx, "kubectl", "-n", namespace, "get", "pods", "-o", "json")
	if err != nil {
		return err
	}
	pods, err := parsePods(text)
	if err != nil {
		return err
	}
	p, err := byName(pods, name)
	if err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", "west", "--", "curl", "-sS", "-m", "5", fmt.Sprintf("http://%s:%d/hostname", p.Addr, webPort)); err != nil {
		return err
	}
	g.gap()
	e, err := packets.Ping(g.west.Place, p.Addr, 56, false, patience)
	g.claim(echoed("west → static pod, two routers", e, p.Addr, 62, err))
	e, err = packets.Ping(g.east.Place, p.Addr, 56, false, patience)
	g.claim(echoed("east → static pod, one switch", e, p.Addr, 64, err))
	return nil
}

// removeStatic takes the static pod's file away, also when the tour is interrupted.
func (g *guide) removeStatic(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	if _, err := g.show(ctx, "exec", "ovn-worker", "--", "rm", staticFile); err != nil {
		g.claim(equal("the static pod's file", "removed", "", err))
	}
}
