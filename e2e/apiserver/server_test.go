package apiserver

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/portolan-cni/portolan/pkg/nstest"
)

var kubeDir = flag.String("kube", "", "directory with Kubernetes' programs, as bin/lab kube prints it; make apiserver")

// TestMain runs the tests beside a server in namespaces of their own, which end with
// them.
func TestMain(m *testing.M) {
	flag.Parse()
	if *kubeDir == "" {
		os.Exit(m.Run())
	}
	os.Exit(nstest.Main(syscall.CLONE_NEWNET|syscall.CLONE_NEWPID, m.Run))
}

// The parties that write.
var (
	admin   = who{name: "admin", groups: []string{"system:masters"}}
	tenant  = who{name: "tenant", groups: []string{"system:authenticated", "tenants"}}
	manager = who{name: "system:serviceaccount:portolan:portolan-manager", groups: []string{"system:authenticated"}}
)

// who is an identity by which a request is made.
type who struct {
	name   string
	groups []string
	node   string // that a token names the pod's node as
}

// agent is a node's agent, whose token names the node.
func agent(node string) who {
	return who{name: "system:serviceaccount:portolan:portolan-node", groups: []string{"system:authenticated"}, node: node}
}

// cluster is an API server with deploy/base applied.
type cluster struct {
	dir    string
	config *rest.Config
	mapper meta.RESTMapper
}

const address = "https://127.0.0.1:6443"

// TestOnRealServer starts the server once, and is all the tests that need it.
func TestOnRealServer(t *testing.T) {
	if *kubeDir == "" {
		t.Skip("needs kube-apiserver: make apiserver")
	}
	c := start(t, nstest.Dir())
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"DevicePools", testDevicePools}, {"Borders", testBorders}, {"Networks", testNetworks}, {"Allocations", testAllocations},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

func start(t *testing.T, dir string) *cluster {
	t.Helper()
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	key := filepath.Join(dir, "sa.key")
	if out, err := exec.Command("openssl", "genrsa", "-out", key, "2048").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("secret,admin,admin,system:masters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const store = "http://127.0.0.1:2379"
	daemon(t, dir, "etcd", "etcd", "--data-dir", dir+"/etcd", "--unsafe-no-fsync", "--listen-client-urls="+store, "--advertise-client-urls="+store)
	daemon(t, dir, "kube-apiserver", *kubeDir+"/kube-apiserver", "--etcd-servers="+store, "--secure-port=6443", "--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none", "--cert-dir="+dir+"/certs", "--token-auth-file="+tokens,
		"--service-account-issuer=https://localhost", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true")
	c := &cluster{dir: dir, config: &rest.Config{Host: address, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 500, Burst: 1000}}
	c.until(t, "the server", func() error { return c.raw("/readyz") })
	t.Log(c.kubectl(t, "apply", "-k", "../../deploy/base"))
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		t.Fatal(err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(d))
	c.prepare(t)
	return c
}

// daemon starts a program that ends with the process.
func daemon(t *testing.T, dir, name string, argv ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("%s ended with:\n%s", name, text[max(0, len(text)-2000):])
		}
		_ = log.Close()
	})
}

func (c *cluster) until(t *testing.T, what string, look func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never came: %s: %v", what, err)
		case <-tick.C:
		}
	}
}

func (c *cluster) raw(path string) error {
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return err
	}
	return d.RESTClient().Get().AbsPath(path).Do(context.Background()).Error()
}

// kubectl runs kubectl as the administrator.
func (c *cluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(*kubeDir+"/kubectl", append([]string{"--kubeconfig=/dev/null", "--server=" + address, "--token=secret",
		"--insecure-skip-tls-verify", "--cache-dir=" + c.dir + "/cache"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// configOf is how somebody reaches the server.
func (c *cluster) configOf(w who) *rest.Config {
	cfg := rest.CopyConfig(c.config)
	if w.name != admin.name {
		cfg.Impersonate = rest.ImpersonationConfig{UserName: w.name, Groups: w.groups}
		if w.node != "" {
			cfg.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {w.node}}
		}
	}
	return cfg
}

// as is a client by which somebody writes.
func (c *cluster) as(w who) dynamic.Interface {
	client, err := dynamic.NewForConfig(c.configOf(w))
	if err != nil {
		panic(err)
	}
	return client
}

// write creates what a document says, or updates it where it exists, as somebody.
func (c *cluster) write(w who, text string) error {
	r, u, err := c.resource(w, text)
	if err != nil {
		return err
	}
	ctx := context.Background()
	have, err := c.get(u)
	if err != nil {
		_, err = r.Create(ctx, u, metav1.CreateOptions{})
		return err
	}
	if w.node != "" { // agents replace, and have no right to patch
		u.SetResourceVersion(have.GetResourceVersion())
		_, err = r.Update(ctx, u, metav1.UpdateOptions{})
		return err
	}
	body, err := sigsyaml.YAMLToJSON([]byte(text))
	if err != nil {
		return err
	}
	_, err = r.Patch(ctx, have.GetName(), types.MergePatchType, body, metav1.PatchOptions{})
	return err
}

// get reads an object as the administrator.
func (c *cluster) get(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	text, err := u.MarshalJSON()
	if err != nil {
		return nil, err
	}
	r, _, err := c.resource(admin, string(text))
	if err != nil {
		return nil, err
	}
	return r.Get(context.Background(), u.GetName(), metav1.GetOptions{})
}

func (c *cluster) resource(w who, text string) (dynamic.ResourceInterface, *unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096).Decode(u); err != nil {
		return nil, nil, err
	}
	k := u.GroupVersionKind()
	m, err := c.mapper.RESTMapping(k.GroupKind(), k.Version)
	if err != nil {
		return nil, nil, err
	}
	r := c.as(w).Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		return r.Namespace(u.GetNamespace()), u, nil
	}
	return r, u, nil
}

// must writes the documents of a text as somebody.
func (c *cluster) must(t *testing.T, w who, text string) {
	t.Helper()
	d := yaml.NewYAMLReader(newReader(text))
	for {
		doc, err := d.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := c.write(w, string(doc)); err != nil {
			t.Fatalf("as %s: %v\n%s", w.name, err, doc)
		}
	}
}

// refused has a write refused by words.
func (c *cluster) refused(t *testing.T, w who, text, words string) {
	t.Helper()
	if err := c.write(w, text); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("as %s: %v, want %q\n%s", w.name, err, words, text)
	}
}

// soon has a write refused by words, once the server has heard of what they follow from.
func (c *cluster) soon(t *testing.T, w who, text, words string) {
	t.Helper()
	r, u, err := c.resource(w, text)
	if err != nil {
		t.Fatal(err)
	}
	c.until(t, words, func() error {
		_, err := r.Create(t.Context(), u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), words) {
			return fmt.Errorf("as %s: %w", w.name, err)
		}
		return nil
	})
}
