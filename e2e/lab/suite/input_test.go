package suite

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// shows asks again until what is printed has want in it, and returns that.
func shows(t testing.TB, want string, look func() string) string {
	t.Helper()
	out := ""
	eventually(t, 45*time.Second, want, func() (string, bool) {
		out = look()
		return out, strings.Contains(out, want)
	})
	return out
}

// eventsOf are the messages of all Events about an object.
func eventsOf(t testing.TB, ns, kind, name string) string {
	t.Helper()
	return kubectl(t, "-n", ns, "get", "events", "--field-selector", "involvedObject.kind="+kind+",involvedObject.name="+name,
		"-o", `jsonpath={range .items[*]}{.reason}{" "}{.message}{"\n"}{end}`)
}

// between pings from one pod to another until stop is called, which returns the
// rounds without an answer and all rounds.
func between(a, b pod) (stop func() (lost, sent int)) {
	done := make(chan struct{})
	var lost, sent int
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			select {
			case <-done:
				return
			default:
			}
			sent++
			if _, err := packets.Ping(a.Place, b.Addr, 56, false, 600*time.Millisecond); err != nil {
				lost++
			}
		}
	}()
	return func() (int, int) { close(done); wg.Wait(); return lost, sent }
}

// TestInputVandalisedAnnotation edits a node's subnet to garbage and to another
// node's, under a stream of pings between the two nodes: it is set back, an Event
// says so, and no packet is lost.
func TestInputVandalisedAnnotation(t *testing.T) {
	fresh(t)
	apply(t, podManifest("a", "ovn-worker")+podManifest("b", "ovn-worker2"))
	pods := ready(t)
	look := func(node string) string {
		return kubectl(t, "get", "node", node, "-o", `jsonpath={.metadata.annotations.k8s\.ovn\.org/node-subnets}`)
	}
	own, other := look("ovn-worker"), look("ovn-worker2")
	before := logical(t, "ovn-worker")
	stop := between(pods["a"], pods["b"])
	for _, bad := range []string{"garbage", other} {
		kubectl(t, "annotate", "node", "ovn-worker", "--overwrite", subnetsKey+"="+bad)
		shows(t, own, func() string { return look("ovn-worker") })
		shows(t, fmt.Sprintf("was %q and is set back", bad), func() string { return eventsOf(t, "default", "Node", "ovn-worker") })
	}
	if lost, sent := stop(); lost > 0 || sent == 0 {
		t.Errorf("%d of %d rounds without an answer", lost, sent)
	}
	if after := logical(t, "ovn-worker"); after != before {
		t.Errorf("the northbound database has changed:\n%s", difference(before, after))
	}
	if got := look("ovn-worker2"); got != other {
		t.Errorf("the other node has %s, had %s", got, other)
	}
}

// TestInputEditedWhileNobodyLeads stops the managers, makes a node's subnet garbage, has its
// agent start anew, and makes another node's subnet the first one's, under a stream of pings
// between the two: a pod starts on the first meanwhile, the next manager gives both what they
// had, no packet is lost, and the zone's database is what it was.
func TestInputEditedWhileNobodyLeads(t *testing.T) {
	fresh(t)
	host, third := "ovn-worker", "ovn-worker2"
	apply(t, podManifest("a", host)+podManifest("b", third))
	pods := ready(t)
	had := map[string]string{host: given(t, host), third: given(t, third)}
	_, own, _ := strings.Cut(had[host], " ")
	for n, has := range had {
		shows(t, strings.NewReplacer(`{"default":`, "", `}`, "").Replace(has), func() string {
			return kubectl(t, "get", "nodenetwork", n, "-o", `jsonpath={.status.allocation.nodeID} {.status.allocation.subnets}`)
		})
	}
	before := logical(t, host)
	stop := between(pods["a"], pods["b"])
	managers := func(n string) {
		kubectl(t, "-n", "portolan", "scale", "deployment", "portolan-manager", "--replicas="+n)
	}
	t.Cleanup(func() { managers("2") })
	managers("0")
	kubectl(t, "-n", "portolan", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=portolan-manager", "--timeout=60s")
	kubectl(t, "annotate", "node", host, "--overwrite", subnetsKey+"=garbage")
	agent := agentOf(t, host)
	began := func() string {
		return kubectl(t, "-n", "portolan", "get", "pod", agent, "-o", `jsonpath={.status.containerStatuses[?(@.name=="portolan-node")].state.running.startedAt}`)
	}
	old := began()
	if err := signal(host, "portolan-node", syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	eventually(t, time.Minute, "another agent", func() (string, bool) { now := began(); return now, now != "" && now != old })
	apply(t, podManifest("c", host))
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/c", "--timeout=90s")
	kubectl(t, "-n", namespace, "delete", "pod", "c", "--wait=true", "--timeout=60s")
	kubectl(t, "annotate", "node", third, "--overwrite", subnetsKey+"="+own)
	managers("2")
	for n, has := range had {
		shows(t, has, func() string { return given(t, n) })
		shows(t, "and is set back to", func() string { return eventsOf(t, "default", "Node", n) })
	}
	if lost, sent := stop(); lost > 0 || sent == 0 {
		t.Errorf("%d of %d rounds without an answer", lost, sent)
	}
	eventually(t, 30*time.Second, "the northbound database is what it was", func() (string, bool) {
		after := logical(t, host)
		return difference(before, after), after == before
	})
}

// TestInputForeignRows has a router of somebody else's in a zone's northbound
// database, and a switch port that has the name of a pod to come: the pod waits, its
// node's NodeNetwork and an Event name both, other pods start and talk, what is
// foreign is left alone; and the pod starts once the name is free.
func TestInputForeignRows(t *testing.T) {
	if layout(t).Zone == "global" {
		t.Skip("the one database of a global zone is tested by TestGlobal…; who tells of it is the same")
	}
	fresh(t)
	host := "ovn-worker"
	nb := func(args ...string) string { return lab(t, append([]string{"nbctl", "--node", host}, args...)...) }
	nb("lr-add", "their-router", "--", "ls-add", "their-switch", "--", "lsp-add", "their-switch", namespace+"_late")
	t.Cleanup(func() { nb("--if-exists", "lr-del", "their-router", "--", "--if-exists", "ls-del", "their-switch") })
	apply(t, podManifest("a", host)+podManifest("b", "ovn-worker2"))
	pods := ready(t)
	stop := between(pods["a"], pods["b"])
	apply(t, podManifest("late", host))
	said := namespace + "_late) to have its name, held by NB:Logical_Switch_Port row "
	shows(t, said, func() string {
		return kubectl(t, "get", "nodenetwork", host, "-o", `jsonpath={range .status.problems[*]}{.object}{" "}{.message}{"\n"}{end}`)
	})
	t.Log(strings.TrimSpace(shows(t, said, func() string { return eventsOf(t, namespace, "Pod", "late") })))
	apply(t, podManifest("c", host))
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/c", "--timeout=60s")
	if lost, sent := stop(); lost > 0 || sent == 0 {
		t.Errorf("%d of %d rounds without an answer", lost, sent)
	}
	if got := nb("--bare", "--columns=name", "find", "Logical_Router", "name=their-router"); !strings.Contains(got, "their-router") {
		t.Errorf("their router is gone: %q", got)
	}
	if out := kubectl(t, "-n", namespace, "get", "pod", "late", "-o", "jsonpath={.status.phase}"); out != "Pending" {
		t.Errorf("pod late is %s while its port is on a switch of somebody else's", out)
	}
	nb("ls-del", "their-switch")
	kubectl(t, "-n", namespace, "wait", "--for=condition=Ready", "pod/late", "--timeout=150s")
	shows(t, "0 ", func() string {
		return kubectl(t, "get", "nodenetwork", host, "-o", "jsonpath={.status.problemCount} {.status.problems} {.status.waiting}")
	})
}

// TestInputNodeNetworks has every node say that it is ready, and an agent's token
// write of its own node only.
func TestInputNodeNetworks(t *testing.T) {
	for host := range machines(t) {
		out := kubectl(t, "get", "nodenetwork", host, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status} {.status.datapath} {.metadata.ownerReferences[0].name}`)
		if !strings.HasPrefix(out, "True ") || !strings.HasSuffix(out, " "+host) {
			t.Errorf("NodeNetwork %s says %q", host, out)
		}
	}
	t.Log("\n" + kubectl(t, "get", "nodenetworks"))
	token := strings.TrimSpace(kubectl(t, "-n", "portolan", "create", "token", "portolan-node", "--bound-object-kind=Pod", "--bound-object-name="+agentOf(t, "ovn-worker")))
	annotate := func(node string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "../../../bin/lab", "kubectl", "--kubeconfig=/dev/null", "--server=https://"+layout(t).API().String(),
			"--insecure-skip-tls-verify", "--token="+token, "annotate", "--overwrite", "--dry-run=server", "node", node, "portolan.io/test=1")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	if out, err := annotate("ovn-worker"); err != nil {
		t.Errorf("its own node: %v\n%s", err, out)
	}
	if out, err := annotate("ovn-worker2"); err == nil || !strings.Contains(out, "the agent of node ovn-worker may not write nodes ovn-worker2") {
		t.Errorf("another's node: %v\n%s", err, out)
	}
}
