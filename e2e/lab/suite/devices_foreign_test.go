package suite

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1beta1 "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// foreignResource is offered by a device plugin of the test's.
const foreignResource = "example.com/nic"

// foreignPlugin is the least that a device plugin is.
type foreignPlugin struct {
	v1beta1.UnimplementedDevicePluginServer
	ids []string
}

// GetDevicePluginOptions implements the kubelet's API.
func (f *foreignPlugin) GetDevicePluginOptions(context.Context, *v1beta1.Empty) (*v1beta1.DevicePluginOptions, error) {
	return &v1beta1.DevicePluginOptions{}, nil
}

// ListAndWatch implements the kubelet's API.
func (f *foreignPlugin) ListAndWatch(_ *v1beta1.Empty, s grpc.ServerStreamingServer[v1beta1.ListAndWatchResponse]) error {
	out := &v1beta1.ListAndWatchResponse{}
	for _, id := range f.ids {
		out.Devices = append(out.Devices, &v1beta1.Device{ID: id, Health: v1beta1.Healthy})
	}
	if err := s.Send(out); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// Allocate implements the kubelet's API.
func (f *foreignPlugin) Allocate(_ context.Context, r *v1beta1.AllocateRequest) (*v1beta1.AllocateResponse, error) {
	out := &v1beta1.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		out.ContainerResponses = append(out.ContainerResponses, &v1beta1.ContainerAllocateResponse{Envs: map[string]string{"EXAMPLE_NIC": strings.Join(c.DevicesIds, ",")}})
	}
	return out, nil
}

// foreign makes soft devices on a node, and offers them to its kubelet, until the test
// ends.
func foreign(t *testing.T, host string, labels ...string) (ids []string) {
	t.Helper()
	for _, l := range labels {
		lab(t, "exec", host, "--", "ip", "link", "add", "sr-"+l, "type", "veth", "peer", "name", "sv-"+l)
		t.Cleanup(func() { lab(t, "exec", host, "--", "ip", "link", "del", "sr-"+l) })
		for _, end := range []string{"sr-", "sv-"} { // the userspace datapath needs whole checksums
			lab(t, "exec", host, "--", "ethtool", "-K", end+l, "tx", "off")
		}
		ids = append(ids, "soft-"+l)
	}
	pid, err := node.InitPID(host)
	if err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d/root/var/lib/kubelet/device-plugins", pid)
	l, err := net.Listen("unix", filepath.Join(dir, "example.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	v1beta1.RegisterDevicePluginServer(s, &foreignPlugin{ids: ids})
	go func() { _ = s.Serve(l) }() // until Stop
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = v1beta1.NewRegistrationClient(conn).Register(t.Context(), &v1beta1.RegisterRequest{Version: v1beta1.Version, Endpoint: "example.sock", ResourceName: foreignResource})
	if err != nil {
		t.Fatal(err)
	}
	err = inTime(60*time.Second, func() error {
		if n := allocatable(t, host, foreignResource); n != fmt.Sprint(len(ids)) {
			return fmt.Errorf("the kubelet has %q of %s, want %d", n, foreignResource, len(ids))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// TestDevicesForeign has a device plugin of others, whose devices the agent learns from
// the kubelet's pod-resources API: a pod with two of them has them as its interfaces, in
// order. A pod that names the network and requests no device is on a veth pair, and one
// that requests too few is refused, each with a reason that names the resource.
func TestDevicesForeign(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	ids := foreign(t, host, "other-0", "other-1")
	first := softLinks(t, host)
	apply(t, deviceNetworks(foreignResource))
	apply(t, devicePod("a", host, "fast,quick", foreignResource, 2)+attachedPod("far", "ovn-worker2", "fast"))
	pods := attachedPods(t)
	a, far := pods["a"], pods["far"]
	if have := interfaceDevices(t, a); !slices.Equal(have, ids) {
		t.Errorf("the interfaces of pod a are %v, want %v", have, ids)
	}
	if have := interfaceDevices(t, far); !slices.Equal(have, []string{""}) {
		t.Errorf("the interface of pod far is %v, want a veth pair", have)
	}
	shows(t, "requests none of it", func() string { return eventsOf(t, namespace, "Pod", "far") })
	from, to := far.with(far.Interfaces[0]), a.with(a.Interfaces[0])
	for _, f := range bothFamilies {
		if err := inTime(20*time.Second, func() error { return answered(from.In(f), to.In(f)) }); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	unlost(t, from, to, func() {
		kubectl(t, "-n", "portolan", "delete", "pod", agentOf(t, host), "--wait=true")
		kubectl(t, "-n", "portolan", "rollout", "status", "daemonset/portolan-node", "--timeout=100s")
	})
	kubectl(t, "-n", namespace, "delete", "pod", "a", "--wait=true", "--timeout=60s")
	asAtFirst(t, host, first)
	apply(t, devicePod("few", host, "fast,quick", foreignResource, 1))
	shows(t, "no device of resource "+foreignResource+" is left for it", func() string { return eventsOf(t, namespace, "Pod", "few") })
	kubectl(t, "-n", namespace, "delete", "pod", "few", "--wait=true", "--timeout=60s")
	asAtFirst(t, host, first)
}
