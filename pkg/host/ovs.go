package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/go-logr/logr"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb/vswitch"
)

// Times of the OVS database client.
const (
	ovsTimeout   = 10 * time.Second       // of one request
	ovsReconnect = 250 * time.Millisecond // between attempts
)

// ownerTag is in external_ids of every row that the engine wrote.
const ownerTag = "portolan/owner"

// OVS watches the bridges of the node's Open_vSwitch database. Rows of ours are
// written by the engine; OVS writes only in Cleanup.
type OVS struct {
	db client.Client

	mu    sync.Mutex // guards bells
	bells []chan struct{}
}

// OpenOVS connects to the database (unix:/run/openvswitch/db.sock) and returns
// when it has read it. The connection is made again whenever it breaks.
func OpenOVS(ctx context.Context, endpoint string) (*OVS, error) {
	m, err := vswitch.FullDatabaseModel()
	if err != nil {
		return nil, err
	}
	quiet := logr.Discard()
	db, err := client.NewOVSDBClient(m, client.WithEndpoint(endpoint), client.WithLogger(&quiet),
		client.WithReconnect(ovsTimeout, backoff.NewConstantBackOff(ovsReconnect)))
	if err != nil {
		return nil, fmt.Errorf("OVS database: %w", err)
	}
	o := &OVS{db: db}
	if err := o.connect(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("OVS database %s: %w", endpoint, err)
	}
	return o, nil
}

func (o *OVS) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ovsTimeout)
	defer cancel()
	if err := o.db.Connect(ctx); err != nil {
		return err
	}
	o.db.Cache().AddEventHandler(&cache.EventHandlerFuncs{
		AddFunc:    func(string, model.Model) { o.ring() },
		UpdateFunc: func(string, model.Model, model.Model) { o.ring() },
		DeleteFunc: func(string, model.Model) { o.ring() },
	})
	// Statistics change every few seconds and are left out.
	br, port, iface, root := &vswitch.Bridge{}, &vswitch.Port{}, &vswitch.Interface{}, &vswitch.OpenvSwitch{}
	_, err := o.db.Monitor(ctx, o.db.NewMonitor(
		client.WithTable(br, &br.Name, &br.Ports, &br.DatapathType, &br.ExternalIDs),
		client.WithTable(port, &port.Name, &port.Interfaces),
		client.WithTable(iface, &iface.Name, &iface.Type, &iface.Ofport, &iface.Error),
		client.WithTable(root, &root.Bridges, &root.ExternalIDs, &root.OtherConfig)))
	return err
}

// Close ends the connection.
func (o *OVS) Close() { o.db.Close() }

// Changed makes a channel that is ready when the database may have changed since
// it was last received from. It may miss a change: look once a second as well.
func (o *OVS) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	bell := make(chan struct{}, 1)
	o.bells = append(o.bells, bell)
	return bell
}

func (o *OVS) ring() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, bell := range o.bells {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}

// Bridge is an OVS bridge as vswitchd has it.
type Bridge struct {
	Datapath intent.Datapath
	Ours     bool                  // the engine's
	Ports    map[string]BridgePort // by name
}

// BridgePort is one interface of a bridge.
type BridgePort struct {
	Type   string // "": a device of the system's
	Number int    // OpenFlow port; 0: not there, or not yet
	Error  string // why vswitchd could not open it
}

// Bridge reads a bridge; false when there is none of that name.
func (o *OVS) Bridge(ctx context.Context, name string) (Bridge, bool, error) {
	var bridges []vswitch.Bridge
	err := o.db.WhereCache(func(b *vswitch.Bridge) bool { return b.Name == name }).List(ctx, &bridges)
	if err != nil || len(bridges) == 0 {
		return Bridge{}, false, err
	}
	b, _ := o.bridgeOf(ctx, &bridges[0])
	return b, true, nil
}

// bridgeOf reads a bridge's ports; false when some are not there, or not yet.
func (o *OVS) bridgeOf(ctx context.Context, row *vswitch.Bridge) (Bridge, bool) {
	b := Bridge{Datapath: intent.SystemDatapath, Ours: row.ExternalIDs[ownerTag] != "", Ports: map[string]BridgePort{}}
	if row.DatapathType != "" {
		b.Datapath = intent.Datapath(row.DatapathType)
	}
	whole := true
	for _, id := range row.Ports {
		port := &vswitch.Port{UUID: id}
		if o.db.Get(ctx, port) != nil {
			whole = false
			continue
		}
		for _, id := range port.Interfaces {
			iface := &vswitch.Interface{UUID: id}
			if o.db.Get(ctx, iface) != nil {
				whole = false
				continue
			}
			b.Ports[iface.Name] = portOf(iface)
		}
	}
	return b, whole
}

// Switch is all bridges of a node and what is mapped to them.
type Switch struct {
	Bridges  map[string]Bridge // by name
	Mappings []string          // of ovn-bridge-mappings: "network:bridge"
}

// Switch reads the bridges. It is false while the copy of the database is not whole:
// it is being read again after its connection broke, and what is missing in it may
// be there.
func (o *OVS) Switch(ctx context.Context) (Switch, bool) {
	s := Switch{Bridges: map[string]Bridge{}}
	var roots []vswitch.OpenvSwitch
	if !o.db.Connected() || o.db.List(ctx, &roots) != nil || len(roots) == 0 {
		return s, false
	}
	for _, id := range roots[0].Bridges {
		row := &vswitch.Bridge{UUID: id}
		if o.db.Get(ctx, row) != nil {
			return s, false
		}
		b, whole := o.bridgeOf(ctx, row)
		if !whole {
			return s, false
		}
		s.Bridges[row.Name] = b
	}
	s.Mappings = strings.Split(roots[0].ExternalIDs["ovn-bridge-mappings"], ",")
	return s, true
}

func portOf(i *vswitch.Interface) BridgePort {
	p := BridgePort{Type: i.Type}
	if i.Ofport != nil && *i.Ofport > 0 {
		p.Number = *i.Ofport
	}
	if i.Error != nil {
		p.Error = *i.Error
	}
	return p
}

// BridgeNIC is what Options.BridgeNIC wants: the first port, by name, that is a
// device of the system's.
func (o *OVS) BridgeNIC(bridge string) (string, intent.Datapath) {
	b, ok, err := o.Bridge(context.Background(), bridge)
	if err != nil || !ok {
		return "", ""
	}
	var nics []string
	for name, p := range b.Ports {
		if p.Type == "" || p.Type == "system" || strings.HasPrefix(p.Type, "dpdk") {
			nics = append(nics, name)
		}
	}
	if len(nics) == 0 {
		return "", ""
	}
	return slices.Min(nics), b.Datapath
}

// RemoveOurs deletes every bridge of ours with all that is in it, pods' ports
// too, and our settings (keys of external_ids and other_config).
func (o *OVS) RemoveOurs(ctx context.Context, externalIDs, otherConfig []string) error {
	ctx, cancel := context.WithTimeout(ctx, ovsTimeout)
	defer cancel()
	var bridges []vswitch.Bridge
	err := o.db.WhereCache(func(b *vswitch.Bridge) bool { return b.ExternalIDs[ownerTag] != "" }).List(ctx, &bridges)
	if err != nil {
		return err
	}
	var roots []vswitch.OpenvSwitch
	if err := o.db.List(ctx, &roots); err != nil || len(roots) == 0 {
		return err
	}
	root := &roots[0]
	ids := make([]string, len(bridges))
	for i, b := range bridges {
		ids[i] = b.UUID
	}
	ops, err := o.db.Where(root).Mutate(root,
		model.Mutation{Field: &root.Bridges, Mutator: ovsdb.MutateOperationDelete, Value: ids},
		model.Mutation{Field: &root.ExternalIDs, Mutator: ovsdb.MutateOperationDelete, Value: externalIDs},
		model.Mutation{Field: &root.OtherConfig, Mutator: ovsdb.MutateOperationDelete, Value: otherConfig})
	if err != nil {
		return err
	}
	results, err := o.db.Transact(ctx, ops...)
	if err != nil {
		return fmt.Errorf("OVS database: %w", err)
	}
	if _, err := ovsdb.CheckOperationResults(results, ops); err != nil {
		return fmt.Errorf("OVS database: %w", err)
	}
	return nil
}
