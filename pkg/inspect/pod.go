package inspect

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Pod is how far a pod's interfaces have come, as a process knows it: a node's agent
// knows all but, in a global zone, Written, which the zone's controller knows.
type Pod struct {
	Pod       string `json:"pod"`
	UID       string `json:"uid,omitempty"`
	Node      string `json:"node,omitempty"`
	Selection string `json:"selection,omitempty"` // k8s.v1.cni.cncf.io/networks as it stands
	// Refused is why Selection cannot be read.
	Refused string `json:"refused,omitempty"`
	// Call is the ADD or PREPARE that runs, or the last since the agent's start.
	Call *PodCall `json:"call,omitempty"`
	// Status is when network-status was last given to be written; nil: not since the
	// agent's start.
	Status     *time.Time     `json:"status,omitempty"`
	Interfaces []PodInterface `json:"interfaces"`
	Waiting    []Group        `json:"waiting,omitempty"`  // why its rows are not written
	Problems   []Problem      `json:"problems,omitempty"` // of the pod, and of the networks it asks for
}

// PodCall is a call of the CNI server for the pod.
type PodCall struct {
	Command string     `json:"command"` // ADD, PREPARE
	Stage   string     `json:"stage"`
	Began   time.Time  `json:"began"`
	Entered time.Time  `json:"entered"`         // of the stage
	Ended   *time.Time `json:"ended,omitempty"` // nil: it runs
	Error   string     `json:"error,omitempty"`
}

// PodInterface is one interface of a pod.
type PodInterface struct {
	Attachment string `json:"attachment"` // "default", or "namespace/definition[/index]"
	Interface  string `json:"interface,omitempty"`
	Planned    bool   `json:"planned"` // the pod's annotation asks for it
	// Waits is why there is no network for it; it may pass where Pending.
	Waits   string `json:"waits,omitempty"`
	Pending bool   `json:"pending,omitempty"`

	Network         string     `json:"network,omitempty"`
	Topology        string     `json:"topology,omitempty"`
	VLAN            int        `json:"vlan,omitempty"`
	PhysicalNetwork string     `json:"physicalNetwork,omitempty"`
	Addresses       []string   `json:"addresses,omitempty"`
	MAC             string     `json:"mac,omitempty"`
	Gateways        []string   `json:"gateways,omitempty"`
	Routes          []string   `json:"routes,omitempty"`
	MTU             int        `json:"mtu,omitempty"`
	TunnelKey       int        `json:"tunnelKey,omitempty"`
	Bandwidth       *Bandwidth `json:"bandwidth,omitempty"`

	// LogicalPort and Switch are OVN's names of the port; Row is that units want it, and
	// Written that the database has it; nil: this process does not write that database.
	LogicalPort string `json:"logicalPort"`
	Switch      string `json:"switch,omitempty"`
	Row         bool   `json:"row"`
	Written     *bool  `json:"written,omitempty"`

	// Port is Open vSwitch's, of Sandbox; empty: there is none.
	Port    string `json:"port,omitempty"`
	OFPort  int    `json:"ofport,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
	// Missing is what Port lacks to carry packets; empty: nothing.
	Missing string `json:"missing,omitempty"`

	// Device that the interface is; nil: a veth pair, or none yet. Port is its representor.
	Device *PodDevice `json:"device,omitempty"`
	// Fallback is why it is none of hardware, though its definition prefers one.
	Fallback string `json:"fallback,omitempty"`

	// Since when; nil: not, or before the agent's start.
	Allocated *time.Time `json:"allocated,omitempty"`
	Prepared  *time.Time `json:"prepared,omitempty"`
	Installed *time.Time `json:"installed,omitempty"` // ovn-controller's own word, which outlives agents
	Attached  *time.Time `json:"attached,omitempty"`
}

// PodDevice is the function of a NIC, or the soft device, that an interface is.
type PodDevice struct {
	ID       string `json:"id"`
	Kind     string `json:"kind,omitempty"` // "vf", "sf", "soft"; empty: it is not to be found
	Pool     string `json:"pool,omitempty"` // that offers it; empty: none of this node
	Resource string `json:"resource,omitempty"`
	PF       string `json:"pf,omitempty"`   // "ens1f0 (0000:03:00.0)"
	Mode     string `json:"mode,omitempty"` // of its NIC's e-switch
}

// Bandwidth limits an interface, in bits a second; 0 is no limit.
type Bandwidth struct {
	Ingress int64 `json:"ingress,omitempty"`
	Egress  int64 `json:"egress,omitempty"`
}

// Pod tells how far a pod has come.
func (s *Server) Pod(ctx context.Context, name string) (Pod, error) {
	out := Pod{Pod: name, Interfaces: []PodInterface{}}
	var found *intent.Pod
	err := s.src.Driver.Do(ctx, func() {
		o, _ := s.src.Engine.Object(intent.Key{Kind: intent.KindPod, Name: name})
		found, _ = o.(*intent.Pod)
	})
	if err != nil {
		return out, err
	}
	if found == nil {
		return out, refuse(http.StatusNotFound, "pod %s is not known here: it is on another node or on its node's own network, has ended, or the API server's watch has not delivered it", name)
	}
	out.UID, out.Node, out.Selection = found.UID, found.Node, found.Noted().Selection
	if s.src.Pod != nil {
		local, err := s.src.Pod(ctx, found)
		if err != nil {
			return out, err
		}
		local.Pod, local.UID, local.Node, local.Selection = out.Pod, out.UID, out.Node, out.Selection
		out = local
	}
	err = s.src.Driver.Do(ctx, func() { out.compiled(s.src.Engine, found) })
	if s.src.Problems != nil {
		for _, p := range s.src.Problems() {
			out.problem(p)
		}
	}
	return out, err
}

// compiled adds what an engine knows.
func (p *Pod) compiled(e *engine.Engine, pod *intent.Pod) {
	for _, a := range pod.Attachments {
		i := p.place(a.Network)
		if len(i.Addresses) == 0 && i.MAC == "" {
			i.Addresses, i.MAC, i.TunnelKey = texts(a.Addresses), a.MAC, a.TunnelKey
			for _, g := range a.Gateways {
				i.Gateways = append(i.Gateways, g.String())
			}
		}
		b := a.Bandwidth
		if a.Network == intent.DefaultNetwork && b == nil {
			b = intent.Limits(pod.Noted().Bandwidth)
		}
		if b != nil {
			i.Bandwidth = &Bandwidth{b.IngressRate, b.EgressRate}
		}
	}
	writes := slices.Contains(e.Databases(), rows.NB)
	view := intent.NewView(e.Store())
	for n := range p.Interfaces {
		i := &p.Interfaces[n]
		i.LogicalPort = rows.AttachmentPort(i.Attachment, pod.Namespace, pod.Name)
		if i.Attachment == intent.DefaultNetwork {
			i.Network, i.Topology = intent.DefaultNetwork, string(intent.Layer3)
		} else if of, ok := view.NetworkOf(i.Attachment); ok {
			net := networkOf(of)
			i.Network, i.Topology, i.VLAN, i.PhysicalNetwork = net.Name, net.Topology, net.VLAN, net.PhysicalNetwork
		}
		if !writes {
			continue
		}
		info, ok := e.Row(rows.Ref{Table: "NB:Logical_Switch_Port", ID: i.LogicalPort})
		i.Row, i.Written = ok, &info.Written
		if ok {
			i.Switch = switchOf(info.Row)
		}
	}
	for _, g := range groupsOf(e) {
		if g.Name == "pod/"+p.Pod {
			p.Waiting = append(p.Waiting, g)
		}
	}
	for _, x := range e.Problems() {
		p.problem(x)
	}
}

// place is the interface of an attachment, which is added when there is none.
func (p *Pod) place(attachment string) *PodInterface {
	n := slices.IndexFunc(p.Interfaces, func(i PodInterface) bool { return i.Attachment == attachment })
	if n < 0 {
		p.Interfaces = append(p.Interfaces, PodInterface{Attachment: attachment})
		n = len(p.Interfaces) - 1
	}
	return &p.Interfaces[n]
}

// problem adds a problem that is the pod's, or of what it asks for.
func (p *Pod) problem(x rows.Problem) {
	kind, name, _ := strings.Cut(x.Object, "/")
	switch intent.Kind(kind) {
	case intent.KindPod:
		if name != p.Pod {
			return
		}
	case intent.KindNetwork:
		if !slices.ContainsFunc(p.Interfaces, func(i PodInterface) bool { return i.Network == name }) {
			return
		}
	case intent.KindPhysicalNetwork:
		if !slices.ContainsFunc(p.Interfaces, func(i PodInterface) bool { return i.PhysicalNetwork == name }) {
			return
		}
	case intent.KindDefinition:
		if !slices.ContainsFunc(p.Interfaces, func(i PodInterface) bool { return intent.DefinitionOf(i.Attachment) == name }) {
			return
		}
	default:
		return
	}
	if q := problemOf(x); !slices.Contains(p.Problems, q) {
		p.Problems = append(p.Problems, q)
	}
}
