package inspect

import (
	"context"
	"net/http"
)

// Devices are a node's device pools, and what they offer.
type Devices struct {
	Pools   []DevicePool `json:"pools"`
	Devices []NodeDevice `json:"devices"`
}

// DevicePool is how a pool stands on the node, as its NodeNetwork says.
type DevicePool struct {
	Name    string   `json:"name"`
	Ready   bool     `json:"ready"`
	Reason  string   `json:"reason,omitempty"` // why not, in a word
	Message string   `json:"message,omitempty"`
	Devices int      `json:"devices"`
	Well    int      `json:"well"`
	InUse   int      `json:"inUse"`
	Steps   []string `json:"steps,omitempty"` // that are left to do
}

// NodeDevice is one device of a pool.
type NodeDevice struct {
	PodDevice
	Netdev      string `json:"netdev,omitempty"`      // here; none while a pod has it
	Representor string `json:"representor,omitempty"` // its port of the e-switch
	Driver      string `json:"driver,omitempty"`
	Holder      string `json:"holder,omitempty"`  // "pod demo/web"; empty: nobody has it
	Trouble     string `json:"trouble,omitempty"` // why nobody can be given it; empty: it is well
}

// Devices tells of a node's devices.
func (s *Server) Devices(ctx context.Context) (Devices, error) {
	if s.src.Devices == nil {
		return Devices{}, refuse(http.StatusNotFound, "this process keeps no devices: ask a node's agent")
	}
	return s.src.Devices(ctx)
}

// Devices asks for PathDevices.
func (c *Client) Devices(ctx context.Context) (Devices, error) {
	return get[Devices](ctx, c, PathDevices, nil)
}
