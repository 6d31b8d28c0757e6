package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1beta1 "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Resource is what pods ask for, by the number of its devices.
type Resource struct {
	Name    string // "portolan.io/fast"
	Devices []Device
}

// Device is one that a container can be given.
type Device struct {
	ID      string
	NUMA    int    // node; -1: none, or not known
	PF      string // that it is a part of: devices that are given together are spread over PFs; "": none
	Trouble string // why nobody can be given it; "": it is well
	Files   []File // that a container needs for it
	// Info is what programs are told of it, by topic: "generic", "vfio", "rdma".
	Info map[string]map[string]string
	// CDI is its qualified name, by which the runtime finds Files itself; "": Files are
	// handed over one by one.
	CDI string
}

// File is a device file.
type File struct {
	Host      string // path on the node
	Container string // "": as on the node
}

// longestID is the kubelet's limit.
const longestID = 63

// check refuses what the kubelet would, or could not tell apart.
func (r Resource) check() error {
	seen := map[string]bool{}
	for _, d := range r.Devices {
		switch {
		case d.ID == "" || len(d.ID) > longestID:
			return fmt.Errorf("resource %s: device %q: an id has 1 to %d bytes", r.Name, d.ID, longestID)
		case seen[d.ID]:
			return fmt.Errorf("resource %s: device %s is declared twice", r.Name, d.ID)
		}
		seen[d.ID] = true
	}
	return nil
}

// shown is a device as the kubelet is told of it.
func (d Device) shown() *v1beta1.Device {
	out := &v1beta1.Device{ID: d.ID, Health: v1beta1.Healthy}
	if d.Trouble != "" {
		out.Health = v1beta1.Unhealthy
	}
	if d.NUMA >= 0 {
		out.Topology = &v1beta1.TopologyInfo{Nodes: []*v1beta1.NUMANode{{ID: int64(d.NUMA)}}}
	}
	return out
}

// Variable is the name of the environment variable in which a container finds the ids
// of a resource's devices, as the SR-IOV device plugin names it; Variable + "_INFO" has
// what is known of each, in JSON.
func Variable(resource string) string {
	return "PCIDEVICE_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, strings.ToUpper(resource))
}

// answer is what a container needs that is given devices.
func answer(resource string, list []Device) (*v1beta1.ContainerAllocateResponse, error) {
	ids := make([]string, len(list))
	info := map[string]map[string]map[string]string{}
	files := map[File]bool{}
	out := &v1beta1.ContainerAllocateResponse{}
	for n, d := range list {
		ids[n] = d.ID
		topics := map[string]map[string]string{"generic": {"deviceID": d.ID}}
		maps.Copy(topics, d.Info)
		info[d.ID] = topics
		if d.CDI != "" {
			out.CdiDevices = append(out.CdiDevices, &v1beta1.CDIDevice{Name: d.CDI})
			continue
		}
		for _, f := range d.Files {
			if f.Container == "" {
				f.Container = f.Host
			}
			files[f] = true
		}
	}
	text, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	out.Envs = map[string]string{Variable(resource): strings.Join(ids, ","), Variable(resource) + "_INFO": string(text)}
	for _, f := range slices.SortedFunc(maps.Keys(files), func(a, b File) int { return strings.Compare(a.Host+" "+a.Container, b.Host+" "+b.Container) }) {
		out.Devices = append(out.Devices, &v1beta1.DeviceSpec{HostPath: f.Host, ContainerPath: f.Container, Permissions: "rw"})
	}
	return out, nil
}
