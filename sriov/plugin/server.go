package plugin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1beta1 "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// server is what the kubelet asks about one resource.
type server struct {
	v1beta1.UnimplementedDevicePluginServer
	resource string
	given    func(resource string, ids []string) error
	now      func() time.Time

	mu        sync.Mutex // guards what follows
	devices   map[string]Device
	lately    map[string]time.Time // when a device was given last
	changed   chan struct{}        // closed when devices are others
	streams   int                  // that the kubelet reads
	withdrawn bool
}

func newServer(resource string, c Config) *server {
	return &server{resource: resource, given: c.Given, now: c.Now, devices: map[string]Device{}, lately: map[string]time.Time{}, changed: make(chan struct{})}
}

// socket is the name of a resource's: short, however long the resource's is.
func socket(resource string) string {
	sum := sha256.Sum256([]byte(resource))
	return "portolan-" + hex.EncodeToString(sum[:6]) + ".sock"
}

// set replaces the devices. From here on nobody is given what is not well.
func (s *server) set(list []Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]Device, len(list))
	for _, d := range list {
		next[d.ID] = d
	}
	news := len(next) != len(s.devices)
	for id, d := range next {
		had, ok := s.devices[id]
		news = news || !ok || had.NUMA != d.NUMA || (had.Trouble == "") != (d.Trouble == "")
	}
	s.devices = next
	if news {
		s.wake()
	}
}

func (s *server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// withdraw has the kubelet see no devices, and streams end.
func (s *server) withdraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices, s.withdrawn = map[string]Device{}, true
	s.wake()
}

// heard reports how many streams the kubelet reads.
func (s *server) heard() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// recent reports whether a device was given after a time.
func (s *server) recent(id string, after time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.lately[id]
	return ok && t.After(after)
}

// GetDevicePluginOptions implements the kubelet's API.
func (s *server) GetDevicePluginOptions(context.Context, *v1beta1.Empty) (*v1beta1.DevicePluginOptions, error) {
	return options(), nil
}

func options() *v1beta1.DevicePluginOptions {
	return &v1beta1.DevicePluginOptions{GetPreferredAllocationAvailable: true}
}

// ListAndWatch implements the kubelet's API: the devices, and again whenever they are
// others.
func (s *server) ListAndWatch(_ *v1beta1.Empty, stream grpc.ServerStreamingServer[v1beta1.ListAndWatchResponse]) error {
	s.mu.Lock()
	s.streams++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.streams--
		s.mu.Unlock()
	}()
	for {
		list, changed, withdrawn := s.list()
		if err := stream.Send(list); err != nil || withdrawn {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *server) list() (out *v1beta1.ListAndWatchResponse, changed <-chan struct{}, withdrawn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out = &v1beta1.ListAndWatchResponse{}
	for _, id := range slices.SortedFunc(maps.Keys(s.devices), compareIDs) {
		out.Devices = append(out.Devices, s.devices[id].shown())
	}
	return out, s.changed, s.withdrawn
}

// GetPreferredAllocation implements the kubelet's API.
func (s *server) GetPreferredAllocation(_ context.Context, r *v1beta1.PreferredAllocationRequest) (*v1beta1.PreferredAllocationResponse, error) {
	s.mu.Lock()
	all := maps.Clone(s.devices)
	s.mu.Unlock()
	out := &v1beta1.PreferredAllocationResponse{}
	for _, c := range r.ContainerRequests {
		ids := prefer(all, c.AvailableDeviceIDs, c.MustIncludeDeviceIDs, int(c.AllocationSize))
		out.ContainerResponses = append(out.ContainerResponses, &v1beta1.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return out, nil
}

// Allocate implements the kubelet's API. A device that is not well is refused: the
// kubelet may not have heard of it yet.
func (s *server) Allocate(_ context.Context, r *v1beta1.AllocateRequest) (*v1beta1.AllocateResponse, error) {
	out := &v1beta1.AllocateResponse{}
	for _, c := range r.ContainerRequests {
		list, err := s.take(c.DevicesIds)
		if err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		if s.given != nil {
			if err := s.given(s.resource, c.DevicesIds); err != nil {
				return nil, status.Error(codes.Internal, fmt.Sprintf("resource %s: %v", s.resource, err))
			}
		}
		a, err := answer(s.resource, list)
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		out.ContainerResponses = append(out.ContainerResponses, a)
	}
	return out, nil
}

// take notes that devices are given, all of them or none.
func (s *server) take(ids []string) ([]Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Device, len(ids))
	for n, id := range ids {
		d, ok := s.devices[id]
		switch {
		case !ok:
			return nil, fmt.Errorf("device %s of resource %s is not there any more: the node offers %d devices of it", id, s.resource, len(s.devices))
		case d.Trouble != "":
			return nil, fmt.Errorf("device %s of resource %s: %s", id, s.resource, d.Trouble)
		}
		list[n] = d
	}
	for _, id := range ids {
		s.lately[id] = s.now()
	}
	return list, nil
}

// PreStartContainer implements the kubelet's API, which was told that it need not call.
func (s *server) PreStartContainer(context.Context, *v1beta1.PreStartContainerRequest) (*v1beta1.PreStartContainerResponse, error) {
	return &v1beta1.PreStartContainerResponse{}, nil
}
