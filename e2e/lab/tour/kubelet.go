package tour

import (
	"context"
	"errors"
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
	return g.restarts(ctx)
}

// restarts claims that no probe has failed so often that kubelet acted on it.
func (g *guide) restarts(ctx context.Context) error {
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "get", "pods"); err != nil {
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
	g.gap()
	took := time.Since(g.since).Round(time.Second)
	for _, p := range pods {
		g.claim(equal(fmt.Sprintf("%s after %s with two probes a second", p.Name, took), "Ready, 0 restarts",
			fmt.Sprintf("%s, %d restarts", readiness(p.ready), p.restarts), nil))
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
	removed := false
	defer func() {
		if !removed { // interrupted, or something above has failed
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			defer cancel()
			_, _ = g.lab(ctx, "exec", "ovn-worker", "--", "rm", "-f", staticFile)
		}
	}()
	if _, err := (proc.Cmd{Argv: append([]string{filepath.Join(g.root, "bin/lab")}, args...), Dir: g.root, Stdin: manifest}).Output(ctx); err != nil {
		return err
	}
	p, err := g.staticPod(ctx)
	if err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", "west", "--", "curl", "-sS", "-m", "5", fmt.Sprintf("http://%s:%d/hostname", p.Addr, webPort)); err != nil {
		return err
	}
	g.gap()
	e, err := packets.Ping(g.west.Place, p.Addr, 56, false, patience)
	ttl, why := g.across()
	g.claim(echoed("west → static pod, "+why, e, p.Addr, ttl, err))
	e, err = packets.Ping(g.east.Place, p.Addr, 56, false, patience)
	g.claim(echoed("east → static pod, one switch", e, p.Addr, 64, err))
	if _, err := g.show(ctx, "exec", "ovn-worker", "--", "rm", staticFile); err != nil {
		return err
	}
	removed = true
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "wait", "--for=delete", "pod/"+p.Name, "--timeout=30s"); err != nil {
		return err
	}
	g.gap()
	g.claim(equal("west → "+p.Addr.String()+", once the pod is gone", "no echo reply", "no echo reply", g.silent(ctx, p)))
	g.claim(equal("northbound: the static pod's port", "gone", "gone", g.unported(ctx, p)))
	return nil
}

// staticPod waits for the pod that kubelet has made of the file, and shows it.
func (g *guide) staticPod(ctx context.Context) (pod, error) {
	const name = "static-ovn-worker" // its own name, and its node's
	err := eventually(ctx, 40*time.Second, func() (bool, error) {
		_, err := g.lab(ctx, "kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=20s")
		return err == nil, err
	})
	if err != nil {
		return pod{}, err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "get", "pod", name, "-o", "wide"); err != nil {
		return pod{}, err
	}
	text, err := g.lab(ctx, "kubectl", "-n", namespace, "get", "pods", "-o", "json")
	if err != nil {
		return pod{}, err
	}
	pods, err := parsePods(text)
	if err != nil {
		return pod{}, err
	}
	return byName(pods, name)
}

// silent waits until a pod that is going away answers no more.
func (g *guide) silent(ctx context.Context, p pod) error {
	return eventually(ctx, 15*time.Second, func() (bool, error) {
		_, err := packets.Ping(g.west.Place, p.Addr, 56, false, 600*time.Millisecond)
		return errors.Is(err, packets.ErrNoEcho), err
	})
}

// unported waits until a pod's node has no port for it.
func (g *guide) unported(ctx context.Context, p pod) error {
	return eventually(ctx, 15*time.Second, func() (bool, error) {
		found, err := g.lab(ctx, "nbctl", "--node", p.node, "--bare", "--columns=name", "find", "Logical_Switch_Port", "name="+namespace+"_"+p.Name)
		return err == nil && strings.TrimSpace(found) == "", err
	})
}
