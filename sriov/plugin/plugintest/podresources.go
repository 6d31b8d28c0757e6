package plugintest

import (
	"context"
	"maps"
	"slices"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

type lister struct {
	podresources.UnimplementedPodResourcesListerServer
	k *Kubelet
}

// List implements the kubelet's API.
func (l lister) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	l.k.mu.Lock()
	defer l.k.mu.Unlock()
	out := &podresources.ListPodResourcesResponse{}
	for _, p := range l.k.pods {
		out.PodResources = append(out.PodResources, p.resources())
	}
	return out, nil
}

// resources is a pod as the kubelet lists it: of each topology a group, and one device
// a group where there is none.
func (p *Pod) resources() *podresources.PodResources {
	c := &podresources.ContainerResources{Name: "main"}
	for _, resource := range slices.Sorted(maps.Keys(p.Devices)) {
		for _, id := range p.Devices[resource] {
			c.Devices = append(c.Devices, &podresources.ContainerDevices{ResourceName: resource, DeviceIds: []string{id}})
		}
	}
	return &podresources.PodResources{Namespace: p.Namespace, Name: p.Name, Containers: []*podresources.ContainerResources{c}}
}
