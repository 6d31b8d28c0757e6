package suite

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// portolan runs bin/portolan as administrator and returns what it printed, and its
// exit status.
func portolan(t testing.TB, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../../bin/lab", append([]string{"portolan"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Logf("portolan %s: %s", strings.Join(args, " "), stderr.String())
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// traced is as much of a trace as is compared with packets.
type traced struct {
	TTL     int
	Objects []string
	Verdict struct{ Outcome, Reason string }
}

// TestMatrixTraceSaysWhatPacketsDo compares ovn trace with echoes, for every pair of
// pods and the outside, in every family, and with packets that must be dropped.
func TestMatrixTraceSaysWhatPacketsDo(t *testing.T) {
	fresh(t)
	apply(t, podManifest("one", "ovn-worker")+podManifest("two", "ovn-worker")+podManifest("three", "ovn-worker2"))
	pods := ready(t)
	trace := func(want int, args ...string) traced {
		out, code := portolan(t, append([]string{"ovn", "trace", "-o", "json"}, args...)...)
		var got traced
		decode(t, out, &got)
		if code != want {
			t.Errorf("%v: exit status %d, wanted %d: %+v", args, code, want, got.Verdict)
		}
		return got
	}
	for _, f := range families(t) {
		flag := "--icmp"
		var six []string
		if f == packets.IPv6 {
			six = []string{"-6"}
		}
		for _, from := range pods {
			for _, to := range pods {
				if from.Pod == to.Pod {
					continue
				}
				got := trace(0, append([]string{namespace + "/" + from.Pod, namespace + "/" + to.Pod, flag}, six...)...)
				echo, err := packets.Ping(from.In(f).Place, to.In(f).Addr, 56, false, patient)
				// Both directions are alike, so what is left of an echo reply's ttl is what
				// the request had left.
				if err != nil || echo.TTL != got.TTL || strings.Join(got.Objects, " ") != "Pod/"+namespace+"/"+to.Pod {
					t.Errorf("%s %s → %s: traced %+v, an echo has ttl %d, %v", f, from.Pod, to.Pod, got, echo.TTL, err)
				}
			}
		}
		got := trace(0, namespace+"/one", outside(t).In(f).Addr.String(), flag)
		if got.Verdict.Outcome != "delivered" {
			t.Errorf("%s to the outside: %+v", f, got)
		}
	}
	if got := trace(1, namespace+"/one", namespace+"/three", "68", "--udp", "--source-port", "67"); strings.Join(got.Objects, " ") != "Node/ovn-worker" {
		t.Errorf("a DHCP server in a pod is dropped by %v: %s", got.Objects, got.Verdict.Reason)
	}
	if got := trace(1, namespace+"/one", namespace+"/two", "--source-address", forged(pods["one"])); strings.Join(got.Objects, " ") != "Pod/"+namespace+"/one" {
		t.Errorf("a forged source is dropped by %v: %s", got.Objects, got.Verdict.Reason)
	}
	if out, code := portolan(t, "ovn", "trace", namespace+"/one", namespace+"/nobody"); code != 2 {
		t.Errorf("to a pod that is not there: exit status %d, %s", code, out)
	}
}

// forged is an address of the pod's first family that no pod has.
func forged(p pod) string {
	if p.Addr.Is4() {
		return "198.51.100.7"
	}
	return "2001:db8::7"
}

// TestMatrixStatusOfEveryNode asks all agents through the API server. What an earlier
// test's crash left, and was set right, is told for a while; nothing else may be.
func TestMatrixStatusOfEveryNode(t *testing.T) {
	out, code := portolan(t, "status", "-o", "json")
	if code != 0 {
		t.Errorf("status: exit status %d", code)
	}
	var list []struct {
		Node, Error string
		Status      struct {
			Ready    bool
			Mode     string
			Problems []struct{ Object, Severity, Message string }
		}
	}
	decode(t, out, &list)
	found := map[string]bool{}
	for _, n := range list {
		if n.Node == "" {
			continue // a zone's controller
		}
		found[n.Node] = true
		if n.Error != "" || !n.Status.Ready || n.Status.Mode != "native" {
			t.Errorf("found %+v", n)
		}
		for _, p := range n.Status.Problems {
			if p.Severity != "repaired" {
				t.Errorf("node %s: %+v", n.Node, p)
			}
		}
	}
	for name := range machines(t) {
		if !found[name] {
			t.Errorf("no status of node %s", name)
		}
	}
	out, code = portolan(t, "problems", "-o", "json")
	var troubles []struct{ Object, Severity, Message string }
	decode(t, out, &troubles)
	for _, p := range troubles {
		if p.Severity != "repaired" {
			t.Errorf("%+v", p)
		}
	}
	if code != 0 {
		t.Errorf("problems: exit status %d", code)
	}
}

// TestMatrixSupportBundle looks for the cluster's own secrets in a bundle.
func TestMatrixSupportBundle(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if out, code := portolan(t, "support-bundle", "-f", file); code != 0 {
		t.Fatalf("exit status %d: %s", code, out)
	}
	parts := unpacked(t, file)
	for name := range machines(t) {
		for _, part := range []string{"status.json", "rows.json", "recording", "metrics", "tools/ovs.json", "tools/flows-br-int", "tools/nftables"} {
			if !strings.Contains(strings.Join(keys(parts), "\n"), "/nodes/"+name+"/"+part) {
				t.Errorf("nothing of %s of node %s", part, name)
			}
		}
	}
	secrets := clusterSecrets(t)
	for name, text := range parts {
		// A controller has no recorder; all else must be had.
		if strings.HasSuffix(name, ".error") && !strings.HasSuffix(name, "/recording.error") {
			t.Errorf("%s: %s", name, text)
		}
		for what, secret := range secrets {
			if bytes.Contains(text, secret) {
				t.Errorf("%s has %s", name, what)
			}
		}
	}
}

func keys(parts map[string][]byte) []string {
	var out []string
	for name := range parts {
		out = append(out, name)
	}
	return out
}

// unpacked reads a bundle; parts that are compressed themselves are opened.
func unpacked(t *testing.T, file string) map[string][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if inner, err := gzip.NewReader(bytes.NewReader(text)); err == nil {
			if text, err = io.ReadAll(inner); err != nil {
				t.Fatal(err)
			}
		}
		out[h.Name] = text
	}
}

// clusterSecrets are lines of every private key of a node's disk, and the token that
// an agent has.
func clusterSecrets(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for line := range strings.Lines(lab(t, "exec", "ovn-control-plane", "--", "sh", "-c", "grep -H -A1 'BEGIN.*PRIVATE KEY' /etc/kubernetes/*.key | grep -v -e BEGIN -e '^--$'")) {
		name, key, ok := strings.Cut(strings.TrimSpace(line), "-")
		for ok && len(key) < 40 {
			_, key, ok = strings.Cut(key, "-")
		}
		if ok {
			out["the key of "+name] = []byte(key)
		}
	}
	agent := strings.TrimSpace(kubectl(t, "-n", "portolan", "get", "pod", "-l", "app.kubernetes.io/name=portolan-node", "-o", "jsonpath={.items[0].metadata.name}"))
	token := kubectl(t, "-n", "portolan", "exec", agent, "-c", "portolan-node", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
	out["the agent's token"] = []byte(strings.TrimSpace(token))
	if len(out) < 3 || len(out["the agent's token"]) < 100 {
		t.Fatalf("found only %d secrets to look for", len(out))
	}
	return out
}
