package metrics

import "github.com/prometheus/client_golang/prometheus"

// Devices is what a node's device pools have. Its name has no process in it:
// portolan_devices.
type Devices struct{ count *prometheus.GaugeVec }

// DeviceCount is how many devices of a pool are in a state.
type DeviceCount struct {
	Pool, Resource, State string
	Devices               int
}

// NewDevices adds the figures.
func NewDevices(s *Set) *Devices {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prometheus.BuildFQName(namespace, "", "devices"),
		Help: "Devices of the node's DevicePools, by state: well, unwell, used (by pods, and well or not)."}, []string{"pool", "resource", "state"})
	s.add(v)
	return &Devices{v}
}

// Show takes how many there are, of all pools.
func (d *Devices) Show(list []DeviceCount) {
	d.count.Reset()
	for _, c := range list {
		d.count.WithLabelValues(c.Pool, c.Resource, c.State).Set(float64(c.Devices))
	}
}
