package kube

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client is a connection to the API server.
type Client = kubernetes.Interface

// Where kubelet mounts a pod's service account.
const (
	DefaultTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	DefaultCAFile    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// ClientConfig says how the API server is reached: by a kubeconfig, or by an
// explicit address with the pod's own token. The environment variables that
// kubelet sets are never read: they name the ClusterIP, which works only once we
// do (decision 29).
type ClientConfig struct {
	Kubeconfig string  // file; excludes the three below
	APIServer  string  // https://172.18.0.3:6443
	TokenFile  string  // read again as it is rotated
	CAFile     string  // "": the system's authorities
	UserAgent  string  // the component's name
	QPS        float32 // steady requests a second; 0: 50
	Burst      int     // 0: twice QPS
}

// AddFlags registers the flags, with c's values as defaults.
func (c *ClientConfig) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Kubeconfig, "kubeconfig", c.Kubeconfig, "kubeconfig `file`; instead of --kube-apiserver")
	f.StringVar(&c.APIServer, "kube-apiserver", c.APIServer, "`URL` at which this node reaches the API server; overrides the configuration file's apiServer")
	f.StringVar(&c.TokenFile, "kube-token-file", c.TokenFile, "bearer token `file` for --kube-apiserver")
	f.StringVar(&c.CAFile, "kube-ca-file", c.CAFile, "certificate authority `file` for --kube-apiserver")
}

// Validate refuses a configuration that names no server, or two.
func (c ClientConfig) Validate() error {
	if c.Kubeconfig != "" {
		return nil
	}
	if c.APIServer == "" {
		return errors.New("no API server: give --kubeconfig, --kube-apiserver, or apiServer in the configuration file; it must be reachable without the cluster network")
	}
	u, err := url.Parse(c.APIServer)
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" {
		return fmt.Errorf("API server %q is not a URL like https://172.18.0.3:6443", c.APIServer)
	}
	return nil
}

// restConfig is client-go's form of c.
func (c ClientConfig) restConfig() (*rest.Config, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	out := &rest.Config{
		Host: c.APIServer, BearerTokenFile: c.TokenFile, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile},
	}
	if c.Kubeconfig != "" {
		var err error
		if out, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
			return nil, fmt.Errorf("kubeconfig: %w", err)
		}
	}
	out.UserAgent = c.UserAgent
	out.QPS, out.Burst = c.QPS, c.Burst
	if out.QPS == 0 {
		out.QPS = 50
	}
	if out.Burst == 0 {
		out.Burst = int(2 * out.QPS)
	}
	// Protobuf costs the server and us a fraction of JSON for the kinds we list.
	out.ContentType = "application/vnd.kubernetes.protobuf"
	out.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return out, nil
}

// Connect makes a client. It does not touch the network.
func (c ClientConfig) Connect() (Client, error) {
	cfg, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(cfg)
}
