package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/ovn-kubernetes/libovsdb/cache"
	"github.com/ovn-kubernetes/libovsdb/client"
	"github.com/ovn-kubernetes/libovsdb/model"
	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/ovsdb/vswitch"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// DefaultOVS is where the node's ovsdb-server listens.
const DefaultOVS = "unix:/run/openvswitch/db.sock"

// safetyNet is how often a waiter reads the row again without being told to:
// libovsdb drops events when its queue is full (decision 10).
const safetyNet = time.Second

// OVSPorts keeps attachments' ports in a node's Open_vSwitch database, over a
// connection of its own that monitors only the columns it reads: vswitchd writes
// every interface's statistics every 5 s.
type OVSPorts struct {
	client client.Client
	bridge string

	mu    sync.Mutex // guards bells, by interface and "" for what vswitchd has read
	bells map[string]map[chan struct{}]bool
}

// DialPorts connects to a database ("" is DefaultOVS) and reads its interfaces.
// bridge is "br-int" but in tests. Close it when done.
func DialPorts(ctx context.Context, endpoint, bridge string) (*OVSPorts, error) {
	if endpoint == "" {
		endpoint = DefaultOVS
	}
	db, err := model.NewClientDBModel("Open_vSwitch", map[string]model.Model{
		vswitch.InterfaceTable: &ovsInterface{}, vswitch.PortTable: &ovsPort{}, vswitch.OpenvSwitchTable: &ovsRoot{},
	})
	if err != nil {
		return nil, err
	}
	c, err := client.NewOVSDBClient(db, client.WithEndpoint(endpoint),
		client.WithReconnect(10*time.Second, backoff.NewConstantBackOff(250*time.Millisecond)))
	if err != nil {
		return nil, err
	}
	if err := c.Connect(ctx); err != nil {
		return nil, fmt.Errorf("connecting to the OVS database at %s: %w", endpoint, err)
	}
	p := &OVSPorts{client: c, bridge: bridge, bells: make(map[string]map[chan struct{}]bool)}
	c.Cache().AddEventHandler(&cache.EventHandlerFuncs{
		AddFunc:    func(_ string, m model.Model) { p.ring(m) },
		UpdateFunc: func(_ string, _, m model.Model) { p.ring(m) },
	})
	i, port, root := &ovsInterface{}, &ovsPort{}, &ovsRoot{}
	if _, err := c.Monitor(ctx, c.NewMonitor(client.WithTable(i, &i.Name, &i.ExternalIDs, &i.Ofport, &i.Error),
		client.WithTable(port, &port.Name), client.WithTable(root, &root.CurCfg))); err != nil {
		c.Close()
		return nil, fmt.Errorf("monitoring the OVS database at %s: %w", endpoint, err)
	}
	return p, nil
}

// Close ends the connection.
func (p *OVSPorts) Close() { p.client.Close() }

func interfaceUUID(name string) string {
	return rows.Ref{Table: "OVS:" + vswitch.InterfaceTable, ID: ownerPrefix + name}.UUID()
}

func portUUID(name string) string {
	return rows.Ref{Table: "OVS:" + vswitch.PortTable, ID: ownerPrefix + name}.UUID()
}

// Ensure implements Ports.
func (p *OVSPorts) Ensure(ctx context.Context, ports ...Port) error {
	var ops []ovsdb.Operation
	var uuids []string
	// transient: ovs-ctl drops such ports when the machine boots, as their devices are gone.
	other, err := ovsdb.NewOvsMap(map[string]string{"transient": "true"})
	if err != nil {
		return err
	}
	for _, port := range ports {
		if there, err := p.occupied(ctx, port); err != nil {
			return err
		} else if there {
			continue
		}
		ids, err := ovsdb.NewOvsMap(externalIDs(port))
		if err != nil {
			return err
		}
		owner, err := ovsdb.NewOvsMap(map[string]string{keyOwner: owner(port)})
		if err != nil {
			return err
		}
		iface := ovsdb.UUID{GoUUID: interfaceUUID(port.Name)}
		uuids = append(uuids, portUUID(port.Name))
		ops = append(ops,
			ovsdb.Operation{Op: ovsdb.OperationInsert, Table: vswitch.InterfaceTable, UUID: iface.GoUUID,
				Row: ovsdb.Row{"name": port.Name, "external_ids": ids}},
			ovsdb.Operation{Op: ovsdb.OperationInsert, Table: vswitch.PortTable, UUID: portUUID(port.Name),
				Row: ovsdb.Row{"name": port.Name, "interfaces": iface, "other_config": other, "external_ids": owner}})
	}
	if len(ops) == 0 {
		return nil
	}
	return p.transact(ctx, append(ops, p.bridgePorts(ovsdb.MutateOperationInsert, uuids...))...)
}

// bridgePorts puts ports into the bridge's set, or takes them out; then the
// database drops port and interface, which are rows of no root table.
func (p *OVSPorts) bridgePorts(how ovsdb.Mutator, uuids ...string) ovsdb.Operation {
	set := ovsdb.OvsSet{}
	for _, u := range uuids {
		set.GoSet = append(set.GoSet, ovsdb.UUID{GoUUID: u})
	}
	return ovsdb.Operation{
		Op: ovsdb.OperationMutate, Table: vswitch.BridgeTable,
		Where:     []ovsdb.Condition{ovsdb.NewCondition("name", ovsdb.ConditionEqual, p.bridge)},
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", how, set)},
	}
}

// Finish implements Ports.
func (p *OVSPorts) Finish(ctx context.Context, name string) error {
	return p.transact(ctx, ovsdb.Operation{
		Op: ovsdb.OperationMutate, Table: vswitch.InterfaceTable,
		Where:     []ovsdb.Condition{ovsdb.NewCondition("name", ovsdb.ConditionEqual, name)},
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("external_ids", ovsdb.MutateOperationDelete, ovsdb.OvsSet{GoSet: []any{keyUnfinished}})},
	})
}

// Remove implements Ports.
func (p *OVSPorts) Remove(ctx context.Context, name, sandbox string) error {
	settled, err := p.Withdraw(ctx, name, sandbox)
	if settled != nil {
		settled(ctx)
	}
	return err
}

// RemoveAll implements Ports.
func (p *OVSPorts) RemoveAll(ctx context.Context, names ...string) error {
	var uuids []string
	for _, name := range names {
		uuids = append(uuids, p.rows(ctx, name)...)
	}
	return p.transact(ctx, p.bridgePorts(ovsdb.MutateOperationDelete, uuids...))
}

// rows are a port's: its own, and of one of ours under another UUID, of another release,
// or restored by hand, that.
func (p *OVSPorts) rows(ctx context.Context, name string) []string {
	uuids := []string{portUUID(name)}
	port := &ovsPort{Name: name}
	if err := p.client.Get(ctx, port); err == nil && port.UUID != uuids[0] {
		uuids = append(uuids, port.UUID)
	}
	return uuids
}

// Withdraw implements Ports.
func (p *OVSPorts) Withdraw(ctx context.Context, name, sandbox string) (settled func(context.Context), err error) {
	row, err := p.row(ctx, name)
	if sandbox != "" && (err != nil || row.ExternalIDs[keySandbox] != sandbox) {
		return nil, ignoreNotFound(err)
	}
	remove := p.bridgePorts(ovsdb.MutateOperationDelete, p.rows(ctx, name)...)
	if err != nil || row.ExternalIDs[keyDevice] == "" {
		return nil, p.transact(ctx, remove)
	}
	return p.unplug(ctx, name, sandbox, remove)
}

// transact commits the operations together. A mutation that met no row is an
// error: OVSDB calls it a success (decision 1).
func (p *OVSPorts) transact(ctx context.Context, ops ...ovsdb.Operation) error {
	results, err := p.client.Transact(ctx, ops...)
	if err != nil {
		return fmt.Errorf("OVS database: %w", err)
	}
	if err := checked(results, ops); err != nil {
		return err
	}
	for i, op := range ops {
		if op.Op != ovsdb.OperationMutate || op.Table == vswitch.OpenvSwitchTable || results[i].Count > 0 {
			continue
		}
		if op.Table == vswitch.BridgeTable {
			return fmt.Errorf("OVS database: bridge %s does not exist", p.bridge)
		}
		return errors.New("OVS database: the interface's record is gone")
	}
	return nil
}

// checked is the errors of operations that failed.
func checked(results []ovsdb.OperationResult, ops []ovsdb.Operation) error {
	errs, err := ovsdb.CheckOperationResults(results, ops)
	if err == nil {
		return nil
	}
	all := []error{err}
	for _, e := range errs {
		all = append(all, e)
	}
	return fmt.Errorf("OVS database: %w", errors.Join(all...))
}

// List implements Ports.
func (p *OVSPorts) List(ctx context.Context) ([]Port, error) {
	var all []ovsInterface
	err := p.client.WhereCache(func(i *ovsInterface) bool {
		return strings.HasPrefix(i.ExternalIDs[keyOwner], ownerPrefix)
	}).List(ctx, &all)
	if err != nil {
		return nil, fmt.Errorf("OVS database: %w", err)
	}
	var out []Port
	for i := range all {
		out = append(out, portOf(&all[i]))
	}
	slices.SortFunc(out, func(a, b Port) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (p *OVSPorts) row(ctx context.Context, name string) (*ovsInterface, error) {
	i := &ovsInterface{Name: name}
	return i, p.client.Get(ctx, i)
}

// State implements Ports.
func (p *OVSPorts) State(ctx context.Context, name string) (PortState, error) {
	i, err := p.row(ctx, name)
	if errors.Is(err, client.ErrNotFound) {
		return PortState{}, nil
	}
	if err != nil {
		return PortState{}, fmt.Errorf("OVS database: %w", err)
	}
	s := PortState{Exists: true, Installed: i.ExternalIDs[keyInstalled] == "true", Sandbox: i.ExternalIDs[keySandbox]}
	if ms, err := strconv.ParseInt(i.ExternalIDs[keySince], 10, 64); err == nil && s.Installed {
		s.Since = time.UnixMilli(ms)
	}
	if i.Ofport != nil {
		s.OFPort = *i.Ofport
	}
	if i.Error != nil {
		s.Error = *i.Error
	}
	return s, nil
}

// WaitInstalled implements Ports.
func (p *OVSPorts) WaitInstalled(ctx context.Context, name string) error {
	bell := make(chan struct{}, 1)
	p.listen(name, bell)
	defer p.leave(name, bell)
	net := time.NewTicker(safetyNet)
	defer net.Stop()
	for {
		s, err := p.State(ctx, name)
		if err == nil && s.Installed {
			return nil
		}
		select {
		case <-bell:
		case <-net.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", waitingFor(s, err), context.Cause(ctx))
		}
	}
}

// waitingFor says what a port that is not installed lacks.
func waitingFor(s PortState, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case !s.Exists:
		return "the OVS port is gone"
	case s.Error != "":
		return "ovs-vswitchd cannot open the device: " + s.Error
	case s.OFPort <= 0:
		return "ovs-vswitchd has not added the port to the bridge"
	}
	return "ovn-controller has not installed the port's flows (no ovn-installed in external_ids)"
}

func (p *OVSPorts) listen(name string, bell chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bells[name] == nil {
		p.bells[name] = make(map[chan struct{}]bool)
	}
	p.bells[name][bell] = true
}

func (p *OVSPorts) leave(name string, bell chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.bells[name], bell); len(p.bells[name]) == 0 {
		delete(p.bells, name)
	}
}

// ring wakes whoever waits for this interface; the waiter reads the row itself.
func (p *OVSPorts) ring(m model.Model) {
	name := ""
	switch m := m.(type) {
	case *ovsInterface:
		name = m.Name
	case *ovsRoot:
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for bell := range p.bells[name] {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}

func owner(p Port) string { return ownerPrefix + p.Pod.UID + "/" + p.IfName }

func externalIDs(p Port) map[string]string {
	addresses := make([]string, len(p.Addresses))
	for i, a := range p.Addresses {
		addresses[i] = a.String()
	}
	m := map[string]string{
		keyIfaceID: p.LogicalPort(), keyIfaceVer: p.Pod.UID, keyMAC: p.MAC,
		keyAddresses: strings.Join(addresses, " "), keyPodIfName: p.IfName,
		keyNetwork: p.Network, keyNAD: p.Key,
		keyOwner: owner(p), keyGeneration: strconv.Itoa(p.Generation),
	}
	encap := ""
	if p.Encap.IsValid() {
		encap = p.Encap.String()
	}
	for key, value := range map[string]string{keySandbox: p.Sandbox, keyNetns: p.Netns, keyDevice: p.Device, keyNetdev: p.Netdev, keyEncap: encap, keyFallback: p.Fallback} {
		if value != "" {
			m[key] = value
		}
	}
	for key, set := range map[string]bool{keyNative: p.Native, keyUnfinished: p.Unfinished} {
		if set {
			m[key] = "true"
		}
	}
	return m
}

// portOf reads a record; parts that cannot be read stay zero, and Recover sees that.
func portOf(i *ovsInterface) Port {
	ids := i.ExternalIDs
	p := Port{Name: i.Name, IfName: ids[keyPodIfName], Sandbox: ids[keySandbox], MAC: ids[keyMAC],
		Key: ids[keyNAD], Network: ids[keyNetwork], Netns: ids[keyNetns],
		Native: ids[keyNative] == "true", Unfinished: ids[keyUnfinished] == "true",
		Device: ids[keyDevice], Netdev: ids[keyNetdev], Fallback: ids[keyFallback]}
	p.Encap, _ = netip.ParseAddr(ids[keyEncap])
	p.Pod.Namespace, p.Pod.Name, _ = splitLogicalPort(ids[keyIfaceID])
	p.Pod.UID = ids[keyIfaceVer]
	p.Generation, _ = strconv.Atoi(ids[keyGeneration])
	for _, s := range strings.Fields(ids[keyAddresses]) {
		if a, err := netip.ParsePrefix(s); err == nil {
			p.Addresses = append(p.Addresses, a)
		}
	}
	return p
}
