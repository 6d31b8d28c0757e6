package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// The programs that answer: deploy/ gives each one's pods the label nameLabel with
// its name, and its container that name.
const (
	nameLabel  = "app.kubernetes.io/name"
	agent      = "portolan-node"
	controller = "portolan-controller"
)

// cluster reaches agents through the API server.
type cluster struct {
	namespace string
	config    *rest.Config
	client    kubernetes.Interface
	raw       *http.Client // the API server's own, for what has no type here

	mu    sync.Mutex // guards known
	known []Agent    // nil: not listed yet
}

// connect reads the kubeconfig. It does not touch the network.
func connect(o Options) (*cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: o.Context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.UserAgent = "portolan"
	config.QPS, config.Burst = 50, 100
	c := &cluster{namespace: o.Namespace, config: config}
	if c.raw, err = rest.HTTPClientFor(config); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	if c.client, err = kubernetes.NewForConfigAndClient(config, c.raw); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return c, nil
}

// agents lists every node with its agent, in order of name, once.
func (c *cluster) agents(ctx context.Context) ([]Agent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known != nil {
		return c.known, nil
	}
	nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	pods, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: nameLabel + "=" + agent})
	if err != nil {
		return nil, fmt.Errorf("list the agents' pods in namespace %s: %w", c.namespace, err)
	}
	byNode := map[string]Agent{}
	for i := range pods.Items {
		p := &pods.Items[i]
		a := c.answerer(p, agent)
		if old, twice := byNode[a.Node]; !twice || old.Err != nil {
			byNode[a.Node] = a
		}
	}
	all := []Agent{}
	for i := range nodes.Items {
		name := nodes.Items[i].Name
		a, ok := byNode[name]
		if !ok {
			a = Agent{Node: name, Process: agent, Err: fmt.Errorf("node %s has no portolan-node pod in namespace %s: is the DaemonSet kept off by a taint?", name, c.namespace)}
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Agent) int { return strings.Compare(a.Node, b.Node) })
	c.known = all
	return all, nil
}

// controllers lists those of a zone of many nodes, by pod; none where each node is
// a zone.
func (c *cluster) controllers(ctx context.Context) ([]Agent, error) {
	pods, err := c.client.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: nameLabel + "=" + controller})
	if err != nil {
		return nil, fmt.Errorf("list the controllers' pods in namespace %s: %w", c.namespace, err)
	}
	var out []Agent
	for i := range pods.Items {
		a := c.answerer(&pods.Items[i], controller)
		a.Node = "" // it answers for a zone
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Agent) int { return strings.Compare(a.Pod, b.Pod) })
	return out, nil
}

// answerer is what a program in a pod says, or why it does not.
func (c *cluster) answerer(p *corev1.Pod, program string) Agent {
	a := Agent{Node: p.Spec.NodeName, Pod: p.Name, Process: program}
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == program && s.State.Running != nil {
			a.Transport = c.transport(p.Name, program)
			return a
		}
		if s.Name == program && s.State.Waiting != nil {
			a.Err = fmt.Errorf("pod %s/%s: container %s is waiting: %s", p.Namespace, p.Name, program, waiting(s.State.Waiting))
		}
	}
	if a.Err == nil {
		a.Err = fmt.Errorf("pod %s/%s: container %s does not run: the pod is %s", p.Namespace, p.Name, program, p.Status.Phase)
	}
	return a
}

func waiting(w *corev1.ContainerStateWaiting) string {
	return strings.TrimSpace(strings.TrimSuffix(w.Reason+": "+w.Message, ": "))
}

// transport speaks HTTP with the program in a pod, through a pipe that the
// program portolan makes there.
func (c *cluster) transport(pod, program string) http.RoundTripper {
	run := c.exec(pod, program, []string{"portolan", "api", "--pipe"})
	return &http.Transport{
		// Each is a process in the pod, and one asker has few questions at a time.
		MaxConnsPerHost: 2,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, "exec in pod "+c.namespace+"/"+pod, run), nil
		},
	}
}

// exec is a command in a program's container.
func (c *cluster) exec(pod, program string, argv []string) stream {
	return func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
		url := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(c.namespace).Name(pod).SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{
				Container: program, Command: argv, Stdin: true, Stdout: true, Stderr: true,
			}, scheme.ParameterCodec).URL()
		// As kubectl does: by WebSocket, and by SPDY where a proxy or an old server wants it.
		spdy, err := remotecommand.NewSPDYExecutor(c.config, http.MethodPost, url)
		if err != nil {
			return err
		}
		websocket, err := remotecommand.NewWebSocketExecutor(c.config, http.MethodGet, url.String())
		if err != nil {
			return err
		}
		either, err := remotecommand.NewFallbackExecutor(websocket, spdy, func(err error) bool {
			return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
		})
		if err != nil {
			return err
		}
		return either.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: stderr})
	}
}

// errNoCluster is for what only the API server knows.
var errNoCluster = errors.New("this needs the API server: give --kubeconfig")

// Pod reads a pod as the compiler sees it. A pod that has no logical port of ours
// is an error that says why.
func (r *Reach) Pod(ctx context.Context, namespace, name string) (*intent.Pod, error) {
	if r.cluster == nil {
		return nil, errNoCluster
	}
	p, err := r.cluster.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no pod %s/%s", namespace, name)
	case err != nil:
		return nil, fmt.Errorf("pod %s/%s: %w", namespace, name, err)
	case p.Spec.NodeName == "":
		return nil, fmt.Errorf("pod %s/%s has no node yet: the scheduler says why (kubectl -n %s describe pod %s)", namespace, name, namespace, name)
	case p.Spec.HostNetwork:
		return nil, fmt.Errorf("pod %s/%s is on its node's network: give the node %s instead", namespace, name, p.Spec.NodeName)
	}
	out, problems := kube.ParsePod(p)
	if out == nil {
		return nil, fmt.Errorf("pod %s/%s has ended (%s): its address is not its own any more", namespace, name, p.Status.Phase)
	}
	if len(out.Attachments) == 0 && len(problems) > 0 {
		return nil, fmt.Errorf("pod %s/%s: %s: %s", namespace, name, problems[0].Field, problems[0].Message)
	}
	return out, nil
}

// Nodes reads all nodes as the compiler sees them, in order of name.
func (r *Reach) Nodes(ctx context.Context) ([]*intent.Node, error) {
	if r.cluster == nil {
		return nil, errNoCluster
	}
	list, err := r.cluster.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var out []*intent.Node
	for i := range list.Items {
		n, _ := kube.ParseNode(&list.Items[i], kube.ZonePerNode)
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *intent.Node) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Raw reads a path of the API server, as JSON or text: "/api/v1/nodes". The
// caller closes the answer.
func (r *Reach) Raw(ctx context.Context, path string) (io.ReadCloser, error) {
	if r.cluster == nil {
		return nil, errNoCluster
	}
	return r.cluster.client.CoreV1().RESTClient().Get().AbsPath("/").RequestURI(path).
		SetHeader("Accept", "application/json, */*").Stream(ctx)
}
