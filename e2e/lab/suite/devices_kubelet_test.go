package suite

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// kubeletDir is a node's directory of the kubelet, seen from here.
func kubeletDir(host string) (string, error) {
	pid, err := node.InitPID(host)
	return fmt.Sprintf("/proc/%d/root/var/lib/kubelet", pid), err
}

// askKubelet asks a node's kubelet by its pod-resources API.
func askKubelet(host string, ask func(context.Context, podresources.PodResourcesListerClient) error) error {
	dir, err := kubeletDir(host)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "pod-resources/kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return ask(ctx, podresources.NewPodResourcesListerClient(conn))
}

// givenDevices are a pod's of the suite's resource, by the kubelet's word; two pods of one
// name, of which one ends, are two.
type givenDevices struct {
	Pod string
	IDs []string
}

// givenBy lists what a node's kubelet has given of the suite's resource.
func givenBy(host string) ([]givenDevices, error) {
	var out []givenDevices
	err := askKubelet(host, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
		all, err := c.List(ctx, &podresources.ListPodResourcesRequest{})
		for _, p := range all.GetPodResources() {
			g := givenDevices{Pod: p.Namespace + "/" + p.Name}
			for _, container := range p.Containers {
				for _, d := range container.Devices {
					if d.ResourceName == suiteResource {
						g.IDs = append(g.IDs, d.DeviceIds...)
					}
				}
			}
			if slices.Sort(g.IDs); len(g.IDs) > 0 {
				out = append(out, g)
			}
		}
		return err
	})
	return out, err
}

// kubeletGave is givenBy, by the pod's name.
func kubeletGave(t *testing.T, host string) map[string][]string {
	t.Helper()
	list, err := givenBy(host)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, g := range list {
		name := filepath.Base(g.Pod)
		out[name] = append(out[name], g.IDs...)
	}
	return out
}

// canGive is how many devices of the suite's resource a node's kubelet believes to be well.
func canGive(host string) (int, error) {
	n := 0
	err := askKubelet(host, func(ctx context.Context, c podresources.PodResourcesListerClient) error {
		all, err := c.GetAllocatableResources(ctx, &podresources.AllocatableResourcesRequest{})
		for _, d := range all.GetDevices() {
			if d.ResourceName == suiteResource {
				n += len(d.DeviceIds)
			}
		}
		return err
	})
	return n, err
}

// kubeletSocket tells a node's device-plugin socket of the kubelet from that of the next one.
func kubeletSocket(host string) (string, error) {
	dir, err := kubeletDir(host)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(filepath.Join(dir, "device-plugins/kubelet.sock"))
	if err != nil {
		return "", err
	}
	return info.ModTime().String(), nil
}

// passedByMultus are the devices that Multus has named in the configurations of a pod's
// networks, in their order, as it writes them down for their DEL; none without Multus.
func passedByMultus(t *testing.T, p netPod) []string {
	t.Helper()
	if layout(t).Multus == "" || len(p.Interfaces) == 0 {
		return nil
	}
	pid, err := node.InitPID(p.Node)
	if err != nil {
		t.Fatal(err)
	}
	sandbox := devicePorts(t, p.Node)[p.Interfaces[0].MAC].Sandbox
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/var/lib/cni/multus/%s", pid, sandbox))
	if err != nil {
		t.Error(err)
		return nil
	}
	var delegates []struct {
		Device string `json:"deviceID"`
		Bytes  []byte // the configuration
	}
	decode(t, string(text), &delegates)
	var out []string
	for _, d := range delegates {
		var config struct {
			Device string `json:"deviceID"`
		}
		decode(t, string(d.Bytes), &config)
		if config.Device != d.Device {
			t.Errorf("Multus says device %q, and its configuration %q", d.Device, config.Device)
		}
		if d.Device != "" {
			out = append(out, d.Device)
		}
	}
	return out
}
