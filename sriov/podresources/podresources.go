// Package podresources answers: which devices has the kubelet given to which pods?
// Input: its pod-resources API (v1), a socket on the node. Output: ids by resource.
//
// Invariants: nothing is remembered, so what is answered was true when it was asked. All
// pods are listed, also for one: the kubelet knows pods by name alone there, and only a
// list shows that it has two of one name.
package podresources

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// DefaultSocket is where the kubelet serves.
const DefaultSocket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// The kubelet lists whole nodes, and gRPC would refuse more than 4 MiB.
const (
	largest = 16 << 20
	timeout = 5 * time.Second
)

// Client asks the kubelet. Its methods may be called from anywhere.
type Client struct {
	socket string
	conn   *grpc.ClientConn
	lister v1.PodResourcesListerClient
}

// New makes a Client, which connects when it is asked. Close it when done.
func New(socket string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largest)))
	if err != nil {
		return nil, fmt.Errorf("the kubelet's pod resources: %w", err)
	}
	return &Client{socket, conn, v1.NewPodResourcesListerClient(conn)}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Pod is one that the kubelet runs.
type Pod struct {
	Namespace, Name string
	Devices         map[string][]string // ids by resource; of all its containers
}

// String is namespace/name.
func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// List lists the pods that have devices.
func (c *Client) List(ctx context.Context) ([]Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	all, err := c.lister.List(ctx, &v1.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking the kubelet at %s which devices pods have: %w; look whether the kubelet runs and the socket is mounted here", c.socket, err)
	}
	var out []Pod
	for _, r := range all.PodResources {
		p := Pod{r.Namespace, r.Name, map[string][]string{}}
		for _, container := range r.Containers {
			for _, d := range container.Devices {
				p.Devices[d.ResourceName] = append(p.Devices[d.ResourceName], d.DeviceIds...)
			}
		}
		if len(p.Devices) > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

// AmbiguousError is of a pod whose name two pods have, of which one still ends.
type AmbiguousError struct{ Pod string }

// Error says what to do.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("the kubelet runs two pods %s that have devices, and does not tell them apart here: one was deleted by force and still ends; try again when it has", e.Pod)
}

// Of tells what one pod has, by resource; nothing where it has no devices. Its error is
// an *AmbiguousError when there are two of the name.
func (c *Client) Of(ctx context.Context, namespace, name string) (map[string][]string, error) {
	all, err := c.List(ctx)
	if err != nil {
		return nil, err
	}
	var found map[string][]string
	for _, p := range all {
		switch {
		case p.Namespace != namespace || p.Name != name:
		case found != nil:
			return nil, &AmbiguousError{p.String()}
		default:
			found = p.Devices
		}
	}
	return found, nil
}
