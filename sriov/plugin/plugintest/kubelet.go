package plugintest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1beta1 "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Patience is how long tests wait for what must come: so long that no machine is too busy.
const Patience = 2 * time.Minute

// Kubelet plays one. Its directory has device-plugins and pod-resources, as
// /var/lib/kubelet has.
type Kubelet struct {
	Root string

	tb   testing.TB
	stop func()

	mu        sync.Mutex // guards what follows
	resources map[string]*offered
	pods      []*Pod
	changed   chan struct{}
	registers int
}

// offered is a resource that a plugin has registered.
type offered struct {
	client  v1beta1.DevicePluginClient
	prefers bool
	devices map[string]*v1beta1.Device
	listens bool
	end     context.CancelFunc
}

// Pod is one that was admitted.
type Pod struct {
	Namespace, Name string
	// Devices by resource, and what its one container got with them.
	Devices map[string][]string
	Answer  map[string]*v1beta1.ContainerAllocateResponse
}

// New makes a kubelet that does not run.
func New(tb testing.TB) *Kubelet {
	tb.Helper()
	// A socket's path has 108 bytes, and a test's directory may take most of them.
	root, err := os.MkdirTemp("", "kubelet")
	if err != nil {
		tb.Fatal(err)
	}
	k := &Kubelet{Root: root, tb: tb, resources: map[string]*offered{}, changed: make(chan struct{})}
	for _, dir := range []string{k.Dir(), filepath.Dir(k.PodResources())} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	tb.Cleanup(func() {
		k.Stop()
		os.RemoveAll(root)
	})
	return k
}

// Dir is the directory of device plugins.
func (k *Kubelet) Dir() string { return filepath.Join(k.Root, "device-plugins") }

// PodResources is the socket of that API.
func (k *Kubelet) PodResources() string {
	return filepath.Join(k.Root, "pod-resources", "kubelet.sock")
}

// Start starts it: it removes every socket of plugins first, as the kubelet does.
func (k *Kubelet) Start() {
	k.tb.Helper()
	entries, err := os.ReadDir(k.Dir())
	if err != nil {
		k.tb.Fatal(err)
	}
	for _, e := range entries {
		os.Remove(filepath.Join(k.Dir(), e.Name()))
	}
	registry, pods := grpc.NewServer(), grpc.NewServer()
	v1beta1.RegisterRegistrationServer(registry, registration{k: k})
	podresources.RegisterPodResourcesListerServer(pods, lister{k: k})
	var wg sync.WaitGroup
	for path, s := range map[string]*grpc.Server{filepath.Join(k.Dir(), "kubelet.sock"): registry, k.PodResources(): pods} {
		os.Remove(path)
		l, err := net.Listen("unix", path)
		if err != nil {
			k.tb.Fatal(err)
		}
		wg.Go(func() { _ = s.Serve(l) })
	}
	k.stop = func() {
		registry.Stop()
		pods.Stop()
		wg.Wait()
	}
}

// Stop stops it. What it knows of plugins is gone, and what pods have stays.
func (k *Kubelet) Stop() {
	if k.stop == nil {
		return
	}
	k.stop()
	k.stop = nil
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range k.resources {
		o.end()
	}
	k.resources = map[string]*offered{}
	k.wake()
}

func (k *Kubelet) wake() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// Registrations is how often plugins have registered.
func (k *Kubelet) Registrations() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.registers
}

type registration struct {
	v1beta1.UnimplementedRegistrationServer
	k *Kubelet
}

var extended = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

// Register implements the kubelet's API.
func (r registration) Register(ctx context.Context, q *v1beta1.RegisterRequest) (*v1beta1.Empty, error) {
	prefix, _, _ := strings.Cut(q.ResourceName, "/")
	switch {
	case !slices.Contains(v1beta1.SupportedVersions[:], q.Version):
		return nil, fmt.Errorf("version %q is not supported", q.Version)
	case !extended.MatchString(q.ResourceName) || strings.HasSuffix(prefix, "kubernetes.io") || strings.HasPrefix(q.ResourceName, "requests."):
		return nil, fmt.Errorf("%q is no name of an extended resource", q.ResourceName)
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(r.k.Dir(), q.Endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	client := v1beta1.NewDevicePluginClient(conn)
	options, err := client.GetDevicePluginOptions(ctx, &v1beta1.Empty{})
	if err != nil {
		conn.Close()
		return nil, err
	}
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if had := r.k.resources[q.ResourceName]; had != nil {
		had.end()
	}
	life, end := context.WithCancel(context.Background())
	o := &offered{client: client, prefers: options.GetPreferredAllocationAvailable, devices: map[string]*v1beta1.Device{}, end: end}
	r.k.resources[q.ResourceName] = o
	r.k.registers++
	go r.k.listen(life, o, conn)
	return &v1beta1.Empty{}, nil
}

// listen follows a resource's devices. When its plugin goes they are unwell.
func (k *Kubelet) listen(ctx context.Context, o *offered, conn *grpc.ClientConn) {
	defer conn.Close()
	defer o.end()
	stream, err := o.client.ListAndWatch(ctx, &v1beta1.Empty{})
	for err == nil {
		var list *v1beta1.ListAndWatchResponse
		if list, err = stream.Recv(); err == nil {
			k.hear(o, list.Devices)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	o.listens = false
	for _, d := range o.devices {
		d.Health = v1beta1.Unhealthy
	}
	k.wake()
}

func (k *Kubelet) hear(o *offered, list []*v1beta1.Device) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o.listens, o.devices = true, map[string]*v1beta1.Device{}
	for _, d := range list {
		if d.ID == "" || len(d.ID) > 63 || o.devices[d.ID] != nil || d.Health != v1beta1.Healthy && d.Health != v1beta1.Unhealthy {
			k.tb.Errorf("a device that no kubelet takes: %v", d)
		}
		o.devices[d.ID] = d
	}
	k.wake()
}

// Devices tells the devices of a resource, by id, with their health.
func (k *Kubelet) Devices(resource string) map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.devices(resource)
}

func (k *Kubelet) devices(resource string) map[string]string {
	o := k.resources[resource]
	if o == nil {
		return nil
	}
	out := map[string]string{}
	for id, d := range o.devices {
		out[id] = d.Health
	}
	return out
}

// Wait returns once the devices of a resource are as asked for; a test fails that waits
// for longer than Patience.
func (k *Kubelet) Wait(resource string, ok func(map[string]string) bool) {
	k.tb.Helper()
	deadline := time.After(Patience)
	for {
		k.mu.Lock()
		now, changed := k.devices(resource), k.changed
		k.mu.Unlock()
		if ok(now) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			k.tb.Fatalf("resource %s: %v after %s", resource, now, Patience)
		}
	}
}

// Well counts the devices that are well.
func Well(devices map[string]string) int {
	n := 0
	for _, health := range devices {
		if health == v1beta1.Healthy {
			n++
		}
	}
	return n
}

var errTooFew = errors.New("too few devices are well and free")

// Admit gives a new pod n devices of a resource, or says why it is refused.
func (k *Kubelet) Admit(namespace, name, resource string, n int) (*Pod, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	o := k.resources[resource]
	if o == nil || !o.listens {
		return nil, fmt.Errorf("resource %s: no plugin", resource)
	}
	var free []string
	for id, d := range o.devices {
		if d.Health == v1beta1.Healthy && !slices.ContainsFunc(k.pods, func(p *Pod) bool { return slices.Contains(p.Devices[resource], id) }) {
			free = append(free, id)
		}
	}
	slices.Sort(free)
	if len(free) < n {
		return nil, fmt.Errorf("resource %s: %w: %d of %d", resource, errTooFew, len(free), n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	chosen := free[:n]
	if o.prefers {
		out, err := o.client.GetPreferredAllocation(ctx, &v1beta1.PreferredAllocationRequest{ContainerRequests: []*v1beta1.ContainerPreferredAllocationRequest{
			{AvailableDeviceIDs: free, AllocationSize: int32(n)}}})
		if err != nil {
			return nil, err
		}
		if ids := out.ContainerResponses[0].DeviceIDs; len(ids) == n {
			chosen = ids
		}
	}
	out, err := o.client.Allocate(ctx, &v1beta1.AllocateRequest{ContainerRequests: []*v1beta1.ContainerAllocateRequest{{DevicesIds: chosen}}})
	if err != nil {
		return nil, err
	}
	return k.admitted(namespace, name, resource, chosen, out.ContainerResponses[0]), nil
}

func (k *Kubelet) admitted(namespace, name, resource string, ids []string, answer *v1beta1.ContainerAllocateResponse) *Pod {
	for _, p := range k.pods {
		if p.Namespace == namespace && p.Name == name {
			p.Devices[resource], p.Answer[resource] = append(p.Devices[resource], ids...), answer
			return p
		}
	}
	p := &Pod{namespace, name, map[string][]string{resource: ids}, map[string]*v1beta1.ContainerAllocateResponse{resource: answer}}
	k.pods = append(k.pods, p)
	return p
}

// Twin makes another pod of a name be listed, as when one was deleted by force and its
// containers still end.
func (k *Kubelet) Twin(namespace, name, resource string, ids ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods = append(k.pods, &Pod{Namespace: namespace, Name: name, Devices: map[string][]string{resource: ids}})
}

// Set makes a pod be listed with devices, as if it had been admitted.
func (k *Kubelet) Set(namespace, name, resource string, ids ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.admitted(namespace, name, resource, ids, nil)
}

// Remove ends pods of a name.
func (k *Kubelet) Remove(namespace, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods = slices.DeleteFunc(k.pods, func(p *Pod) bool { return p.Namespace == namespace && p.Name == name })
}
