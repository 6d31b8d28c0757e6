package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// serve answers every request on a unix socket with its path.
func serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return path
}

func ask(rt http.RoundTripper, path string) (string, error) {
	resp, err := (&http.Client{Transport: rt}).Get("http://agent" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func TestSocket(t *testing.T) {
	r, err := Open(Options{Socket: serve(t)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Agent(t.Context())
	if err != nil || !r.Local() {
		t.Fatal(err)
	}
	if got, err := ask(a.Transport, "/status"); err != nil || got != "/status" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := r.On(t.Context(), "other"); err == nil {
		t.Error("another node was reached through a socket")
	}
	if _, err := Open(Options{Socket: "/x", Node: "a"}); err == nil {
		t.Error("--socket and --node were accepted together")
	}
}

// piped has commands for connections.
func piped(run stream) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, "exec in pod portolan/x", run), nil
	}}
}

func TestPipeCarriesHTTP(t *testing.T) {
	path := serve(t)
	ended := make(chan struct{}, 1)
	c := piped(func(ctx context.Context, in io.Reader, out, _ io.Writer) error {
		defer func() { ended <- struct{}{} }()
		conn, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		go func() { _, _ = io.Copy(conn, in) }()
		_, err = io.Copy(out, conn)
		return err
	})
	for _, p := range []string{"/a", "/b"} { // twice over one connection
		if got, err := ask(c, p); err != nil || got != p {
			t.Errorf("%q, %v", got, err)
		}
	}
	if len(ended) != 0 {
		t.Error("the command ended between two requests")
	}
	c.CloseIdleConnections()
	<-ended // closing the connection ends the command
}

func TestPipeSaysWhyItBroke(t *testing.T) {
	c := piped(func(_ context.Context, _ io.Reader, _, stderr io.Writer) error {
		fmt.Fprintln(stderr, "dial unix /run/portolan/inspect.sock: no such file")
		return errors.New("command terminated with exit code 1")
	})
	_, err := ask(c, "/status")
	for _, want := range []string{"pod portolan/x", "exit code 1", "inspect.sock: no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func node(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func agentPod(node, name string, state corev1.ContainerState) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: DefaultNamespace, Labels: map[string]string{"app.kubernetes.io/name": "portolan-node"}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: agent, State: state},
		}},
	}
}

func TestAgentsNamesNodesWithoutOne(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	crashing := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 10s"}}
	r := &Reach{cluster: &cluster{namespace: DefaultNamespace, client: fake.NewClientset(
		node("c"), node("a"), node("b"), agentPod("a", "a-1", running), agentPod("b", "b-1", crashing), agentPod("a", "a-0", crashing),
	)}}
	all, err := r.Agents(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	if all[0].Node != "a" || all[0].Err != nil || all[0].Pod != "a-1" || all[0].Transport == nil {
		t.Errorf("a: %+v", all[0])
	}
	for i, want := range map[int]string{1: "CrashLoopBackOff: back-off 10s", 2: "has no portolan-node pod"} {
		if all[i].Err == nil || !strings.Contains(all[i].Err.Error(), want) {
			t.Errorf("%s: %v, wanted %q", all[i].Node, all[i].Err, want)
		}
	}
	if _, err := r.Agent(t.Context()); err == nil || !strings.Contains(err.Error(), "--node, one of a, b, c") {
		t.Errorf("several nodes, none named: %v", err)
	}
	r.options.Node = "a"
	if a, err := r.Agent(t.Context()); err != nil || a.Node != "a" {
		t.Errorf("--node a: %+v, %v", a, err)
	}
	r.options.Node = "z"
	if _, err := r.Agent(t.Context()); err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("--node z: %v", err)
	}
}

func TestPodSaysWhatItCannotBeAskedFor(t *testing.T) {
	unbound := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "unbound", Namespace: "d"}}
	host := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "host", Namespace: "d"}, Spec: corev1.PodSpec{NodeName: "a", HostNetwork: true}}
	done := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "done", Namespace: "d"}, Spec: corev1.PodSpec{NodeName: "a"},
		Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}
	web := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "d"}, Spec: corev1.PodSpec{NodeName: "a"}}
	r := &Reach{cluster: &cluster{client: fake.NewClientset(unbound, host, done, web)}}
	for name, want := range map[string]string{"unbound": "no node yet", "host": "give the node a", "done": "has ended", "none": "no pod d/none"} {
		if _, err := r.Pod(t.Context(), "d", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, wanted %q", name, err, want)
		}
	}
	if p, err := r.Pod(t.Context(), "d", "web"); err != nil || p.Node != "a" {
		t.Errorf("web: %+v, %v", p, err)
	}
}
