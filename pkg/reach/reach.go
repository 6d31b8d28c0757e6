package reach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// DefaultSocket is where an agent serves its API on its node.
const DefaultSocket = "/run/portolan/inspect.sock"

// DefaultNamespace is where deploy/ puts the agents.
const DefaultNamespace = "portolan"

// Options say which agents are meant, and the way to them.
type Options struct {
	Node       string // "": all nodes, or the one that the socket belongs to
	Socket     string // "": DefaultSocket, if nothing else is given and it exists
	Kubeconfig string // "": as kubectl finds it (KUBECONFIG, ~/.kube/config)
	Context    string // of the kubeconfig; "": its current one
	Namespace  string // of the agents; "": DefaultNamespace
}

// AddFlags registers the flags.
func (o *Options) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Node, "node", o.Node, "the `name` of the node to ask, through the API server")
	f.StringVar(&o.Socket, "socket", o.Socket, "ask the agent behind this unix `socket`; default on a node: "+DefaultSocket)
	f.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig, "kubeconfig `file`; default: as kubectl finds it")
	f.StringVar(&o.Context, "context", o.Context, "`name` of the kubeconfig's context")
	f.StringVar(&o.Namespace, "portolan-namespace", DefaultNamespace, "`namespace` that Portolan runs in")
}

// Agent is one node's agent. Err says why it cannot be asked; there is no
// Transport then. With it any request goes to this agent, whatever host its URL
// names.
type Agent struct {
	Node      string // "" behind a socket: the agent itself says it
	Pod       string // "" behind a socket
	Process   string // the program: portolan-node; "" behind a socket
	Err       error
	Transport http.RoundTripper
}

// Reach is the way to agents. Its methods may be used by several goroutines.
type Reach struct {
	options Options
	local   http.RoundTripper // nil: through the API server
	cluster *cluster          // nil: there is only the socket
}

// Open chooses the way: a socket that is named, else the API server if a node, a
// kubeconfig or a context is named, else this node's socket if there is one, else
// the API server of the kubeconfig that kubectl would use. Nothing is sent yet.
func Open(o Options) (*Reach, error) {
	if o.Namespace == "" {
		o.Namespace = DefaultNamespace
	}
	if o.Socket != "" && (o.Node != "" || o.Kubeconfig != "" || o.Context != "") {
		return nil, errors.New("--socket is the agent of this node: give it, or --node, --kubeconfig and --context, not both")
	}
	r := &Reach{options: o}
	named := o.Node != "" || o.Kubeconfig != "" || o.Context != ""
	if o.Socket == "" && !named {
		if info, err := os.Stat(DefaultSocket); err == nil && info.Mode()&os.ModeSocket != 0 {
			o.Socket = DefaultSocket
		}
	}
	if o.Socket != "" {
		r.local = socketTransport(o.Socket)
		return r, nil
	}
	var err error
	r.cluster, err = connect(o)
	if err != nil {
		return nil, fmt.Errorf("no agent here (%s is not there), and no API server: %w", DefaultSocket, err)
	}
	return r, nil
}

// socketTransport speaks HTTP to a unix socket.
func socketTransport(path string) http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			err = fmt.Errorf("%w: is portolan-node running on this machine, and are you root?", err)
		}
		return conn, err
	}}
}

// Namespace is where the agents run.
func (r *Reach) Namespace() string { return r.options.Namespace }

// Named reports whether --node names the one node that is meant.
func (r *Reach) Named() bool { return r.options.Node != "" }

// Local reports whether only the agent of this machine can be asked.
func (r *Reach) Local() bool { return r.cluster == nil }

// Agents lists the agents that are meant, by node: one if --node or a socket says
// which, else all nodes', also of those that cannot be asked.
func (r *Reach) Agents(ctx context.Context) ([]Agent, error) {
	if r.local != nil {
		return []Agent{{Transport: r.local}}, nil
	}
	all, err := r.cluster.agents(ctx)
	if err != nil || r.options.Node == "" {
		return all, err
	}
	i := slices.IndexFunc(all, func(a Agent) bool { return a.Node == r.options.Node })
	if i < 0 {
		return nil, fmt.Errorf("--node %s: the cluster has no such node, but %s", r.options.Node, nodeNames(all))
	}
	return all[i : i+1], nil
}

// Controllers lists the controllers of a zone of many nodes; none where each node is
// a zone, or where only a socket can be asked.
func (r *Reach) Controllers(ctx context.Context) ([]Agent, error) {
	if r.cluster == nil {
		return nil, nil
	}
	return r.cluster.controllers(ctx)
}

// Agent is the one agent that is meant. Where several nodes could be, and the
// cluster has more than one, it asks for --node.
func (r *Reach) Agent(ctx context.Context) (Agent, error) {
	all, err := r.Agents(ctx)
	switch {
	case err != nil:
		return Agent{}, err
	case len(all) == 0:
		return Agent{}, errors.New("the cluster has no node")
	case len(all) > 1:
		return Agent{}, fmt.Errorf("which node? give --node, one of %s", nodeNames(all))
	}
	return all[0], all[0].Err
}

// On is the agent of a node. Behind a socket only its own can be had.
func (r *Reach) On(ctx context.Context, node string) (Agent, error) {
	if r.local != nil {
		return Agent{}, fmt.Errorf("node %s cannot be asked through this node's socket: give --kubeconfig", node)
	}
	all, err := r.cluster.agents(ctx)
	if err != nil {
		return Agent{}, err
	}
	for _, a := range all {
		if a.Node == node {
			return a, a.Err
		}
	}
	return Agent{}, fmt.Errorf("the cluster has no node %s, but %s", node, nodeNames(all))
}

func nodeNames(all []Agent) string {
	var names []string
	for _, a := range all {
		names = append(names, a.Node)
	}
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("… (%d in all)", len(all)))
	}
	return strings.Join(names, ", ")
}
