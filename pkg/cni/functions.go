package cni

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/sriov"
)

// TypeSRIOV is the CNI type of functions on the physical network, by sriov-cni's fields.
const TypeSRIOV = "sriov"

// DelegateFunction is a Delegation for the addresses of a function on the physical network.
const DelegateFunction = "function"

// functionConf is what is read of a configuration of type sriov beside sriov.Settings;
// logLevel and logFile say nothing to an agent, which has a log of its own.
type functionConf struct {
	PCIBusID string `json:"pciBusID"`
	IPAM     struct {
		Type string `json:"type"`
	} `json:"ipam"`
	Runtime struct {
		MAC string `json:"mac"`
	} `json:"runtimeConfig"`
}

// functionCall is one call of type sriov.
type functionCall struct {
	*Request
	conf     functionConf
	settings sriov.Settings
	owner    sriov.Owner
	pod      Pod
}

// physical serves a call of type sriov: a function of a NIC in legacy mode, which is on the
// physical network, with its PF's settings. It takes neither a sandbox's turn nor a pod's:
// where Portolan runs the plugins of a pod, this is called while the pod's own call holds both.
// What keeps calls apart is one interface's turn here, and the keeper's for each device.
func (a *Agent) physical(ctx context.Context, t *trace, r *Request) (json.RawMessage, error) {
	if r.Command == wire.GC {
		return nil, nil // what a vanished sandbox had is found by its namespace
	}
	if a.config.Keeper == nil && r.Command != wire.Del {
		return nil, wire.Errorf(wire.CodeFailed, "type sriov: this node gives no devices")
	}
	unlock, err := a.functions.lock(ctx, r.ContainerID+" "+r.IfName)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c := &functionCall{Request: r, pod: Pod{Namespace: r.Args.Namespace, Name: r.Args.Name, UID: r.Args.UID},
		owner: sriov.Owner{Sandbox: r.ContainerID, Pod: r.Args.Namespace + "/" + r.Args.Name, UID: r.Args.UID, NAD: r.Config.Name, IfName: r.IfName, Netns: r.Netns}}
	switch r.Command {
	case wire.Add:
		if err := c.read(); err != nil {
			return nil, err
		}
		if c.device() == "" {
			return nil, a.noDevice(ctx, c)
		}
		return a.addFunction(ctx, t, c)
	case wire.Check:
		return nil, a.checkFunction(ctx, t, c)
	}
	return nil, a.delFunction(ctx, t, c)
}

// read reads what an ADD is to make.
func (c *functionCall) read() error {
	if err := json.Unmarshal(c.raw, &c.conf); err != nil {
		return wire.Errorf(wire.CodeDecode, "network configuration of type sriov: %v", err)
	}
	var err error
	if c.settings, err = sriov.ParseSettings(c.raw); err != nil {
		return wire.Errorf(wire.CodeConfig, "network %s of type sriov: %v", c.Config.Name, err)
	}
	if mac := cmp.Or(c.conf.Runtime.MAC, c.Args.MAC); mac != "" { // the runtime's word comes before the definition's
		c.settings.MAC = mac
		if err := c.settings.Check(); err != nil {
			return wire.Errorf(wire.CodeConfig, "network %s of type sriov: %v", c.Config.Name, err)
		}
	}
	return nil
}

// noDevice is of a call that names none: its definition, or its pod, says no resource.
func (a *Agent) noDevice(ctx context.Context, c *functionCall) error {
	has := "this node gives no devices"
	if a.config.Devices != nil {
		has = a.config.Devices.Given(ctx, c.pod)
	}
	return wire.Errorf(wire.CodeConfig, "network %s of type sriov: no device is given for pod %s: %s; annotate the definition with k8s.v1.cni.cncf.io/resourceName, and request that resource in the pod's containers",
		c.Config.Name, c.pod, has)
}

func (c *functionCall) device() string { return cmp.Or(c.Config.device(), c.conf.PCIBusID) }

// admit refuses a device that is not for a physical network, and settings that the
// administrator has not allowed.
func (a *Agent) admit(ctx context.Context, c *functionCall) (sriov.Device, error) {
	d, err := a.config.Keeper.Resolve(c.device())
	if err == nil {
		err = d.Fault()
	}
	if err == nil && a.config.Devices != nil {
		// A definition may name any device: it must be one that the pod was given.
		_, err = a.config.Devices.Choose(ctx, DeviceWish{Wish: Wish{Pod: c.pod, Key: c.owner.NAD, IfName: c.IfName, Network: c.Config.Name}, Named: d.ID})
	}
	if err != nil {
		return d, err
	}
	if d.Representor != "" {
		return d, fmt.Errorf("device %s is on an e-switch in switchdev mode, where its packets come to %s and not to the physical network: use a definition of type portolan (localnet for a physical network), or put the NIC into legacy mode", d.ID, d.Representor)
	}
	for field, loose := range map[string]bool{"trust": c.settings.Trust == "on", "spoofchk": c.settings.Spoofchk == "off"} {
		if loose && (a.config.Devices == nil || !a.config.Devices.Trusts(d.ID, c.pod.Namespace)) {
			return d, fmt.Errorf("%s of network %s would let the pod speak in the name of others, and namespace %s is not trusted with device %s: take it out, or have the administrator name the namespace in spec.trusted of the DevicePool",
				field, c.Config.Name, c.pod.Namespace, d.ID)
		}
	}
	return d, nil
}

func (a *Agent) addFunction(ctx context.Context, t *trace, c *functionCall) (json.RawMessage, error) {
	if err := t.enter(ctx, StageChooseDevice); err != nil {
		return nil, err
	}
	d, err := a.admit(ctx, c)
	t.port = d.PF.Netdev
	if err != nil {
		return nil, err
	}
	// What an earlier ADD of the same interface has left is undone.
	if err := a.forgetFunction(ctx, t, c); err != nil {
		return nil, err
	}
	result, err := a.makeFunction(ctx, t, c, d)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		return nil, errors.Join(err, a.forgetFunction(undo, t, c))
	}
	if err := t.enter(ctx, StageAnswer); err != nil {
		return nil, err
	}
	out, err := result.GetAsVersion(c.Config.CNIVersion)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// makeFunction gives the sandbox the function, and what its IPAM plugin says.
func (a *Agent) makeFunction(ctx context.Context, t *trace, c *functionCall, d sriov.Device) (*types100.Result, error) {
	if err := t.enter(ctx, StageTakeDevice); err != nil {
		return nil, err
	}
	given, err := a.onceFree(ctx, a.config.Keeper.Attach, sriov.Attachment{Device: d.ID, Owner: c.owner, Settings: c.settings})
	if err != nil {
		return nil, err
	}
	for _, note := range given.Notes {
		a.log.Info("device", "pod", c.owner.Pod, "device", d.ID, "note", note)
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if c.conf.IPAM.Type != "" {
		if err := t.enter(ctx, StageRunPlugins); err != nil {
			return nil, err
		}
		if result, err = a.askIPAM(ctx, c); err != nil {
			return nil, err
		}
	}
	result.Interfaces = []*types100.Interface{{Name: c.IfName, Sandbox: c.Netns, Mac: given.MAC, Mtu: given.MTU}}
	if d.Bus == "pci" {
		result.Interfaces[0].PciID = d.ID
	}
	for _, ip := range result.IPs {
		ip.Interface = types100.Int(0)
	}
	if given.IfName == "" {
		return result, nil // a program drives it, and knows its addresses by the result
	}
	if err := t.enter(ctx, StageConfigure); err != nil {
		return nil, err
	}
	mac, err := net.ParseMAC(given.MAC)
	if err != nil {
		return nil, err
	}
	pair := Pair{Device{MAC: mac, Given: true}, physicalEndpoint(result, c.Request)}
	if err := a.config.Links.Configure(pair); err != nil {
		return nil, err
	}
	if err := t.enter(ctx, StageAnnounce); err != nil {
		return nil, err
	}
	return result, a.config.Links.Announce(pair)
}

// askIPAM asks the configuration's IPAM plugin for addresses.
func (a *Agent) askIPAM(ctx context.Context, c *functionCall) (*types100.Result, error) {
	list, err := AddressList(c.raw, c.conf.IPAM.Type, c.Config.Name)
	if err != nil {
		return nil, err
	}
	d := c.delegation()
	d.Chain = Chain{List: list}
	result, err := a.config.Plugins.Add(ctx, d)
	if err == nil && len(result.IPs) == 0 {
		err = errors.New("it gives no address")
	}
	if err != nil {
		return nil, fmt.Errorf("IPAM plugin %q of network %s: %w", c.conf.IPAM.Type, c.Config.Name, err)
	}
	copied := *result
	return &copied, nil
}

func (c *functionCall) delegation() Delegation {
	return Delegation{For: DelegateFunction, Pod: c.pod, Key: c.IfName, Sandbox: c.ContainerID, Netns: c.Netns, IfName: c.IfName, InfraID: c.Args.InfraID}
}

// AddressList is a plugin's configuration as its IPAM plugin is executed with it: all of it,
// under that plugin's type (specification, section 4), which takes addresses that are asked
// for by the capability ips.
func AddressList(config []byte, plugin, name string) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(config, &all); err != nil {
		return nil, err
	}
	kind, err := json.Marshal(plugin)
	if err != nil {
		return nil, err
	}
	all["type"], all["capabilities"] = kind, json.RawMessage(`{"ips":true}`)
	delete(all, "prevResult")
	version := all["cniVersion"]
	return json.Marshal(struct {
		CNIVersion json.RawMessage              `json:"cniVersion,omitempty"`
		Name       string                       `json:"name"`
		Plugins    []map[string]json.RawMessage `json:"plugins"`
	}{version, name, []map[string]json.RawMessage{all}})
}

// physicalEndpoint is what an interface of the physical network gets by a result.
func physicalEndpoint(result *types100.Result, r *Request) Endpoint {
	e := Endpoint{Netns: r.Netns, IfName: r.IfName, Physical: true}
	gateways := map[bool]netip.Addr{}
	for _, ip := range result.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		ones, _ := ip.Address.Mask.Size()
		if !ok {
			continue
		}
		e.Addresses = append(e.Addresses, netip.PrefixFrom(addr.Unmap(), ones))
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok && !gateways[gw.Unmap().Is4()].IsValid() {
			gateways[gw.Unmap().Is4()] = gw.Unmap()
		}
	}
	for _, route := range result.Routes {
		to, via := prefixOf(route)
		if !via.IsValid() {
			via = gateways[to.Addr().Is4()]
		}
		if to.Bits() == 0 && via.IsValid() {
			e.Gateways = append(e.Gateways, via)
		} else if to.IsValid() {
			e.Routes = append(e.Routes, Route{Destination: to, Gateway: via})
		}
	}
	return e
}

func prefixOf(r *types.Route) (to netip.Prefix, via netip.Addr) {
	addr, _ := netip.AddrFromSlice(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	via, _ = netip.AddrFromSlice(r.GW)
	return netip.PrefixFrom(addr.Unmap(), ones), via.Unmap()
}

// functionOf finds the record of a call's function; nil: there is none.
func (a *Agent) functionOf(c *functionCall) *sriov.Record {
	for _, r := range a.records() {
		if r.Representor == "" && r.Owner.Sandbox == c.ContainerID && r.Owner.IfName == c.IfName {
			return &r
		}
	}
	return nil
}

// leases lists what IPAM plugins have begun for a call's function.
func (a *Agent) leases(match func(Delegation) bool) ([]Delegation, error) {
	list, err := a.config.Plugins.List()
	var out []Delegation
	for _, d := range list {
		if d.For == DelegateFunction && match(d) {
			out = append(out, d)
		}
	}
	return out, err
}

func (c *functionCall) own(d Delegation) bool {
	return d.Sandbox == c.ContainerID && d.IfName == c.IfName
}

// forgetFunction gives addresses and function back. What is not there any more is done.
func (a *Agent) forgetFunction(ctx context.Context, t *trace, c *functionCall) error {
	leases, err := a.leases(c.own)
	errs := []error{err}
	for _, d := range leases {
		errs = append(errs, a.config.Plugins.Del(ctx, d))
	}
	if r := a.functionOf(c); r != nil {
		a.lookAt(t, r.Device)
		errs = append(errs, a.config.Keeper.Release(ctx, r.Device, r.Owner))
	}
	return errors.Join(errs...)
}

// lookAt has an error name the NIC of a function, whose settings are shown there.
func (a *Agent) lookAt(t *trace, device string) {
	if d, err := a.config.Keeper.Resolve(device); err == nil {
		t.port = d.PF.Netdev
	}
}

func (a *Agent) delFunction(ctx context.Context, t *trace, c *functionCall) error {
	if err := t.enter(ctx, StageReturnDevice); err != nil {
		return err
	}
	return a.forgetFunction(ctx, t, c)
}

func (a *Agent) checkFunction(ctx context.Context, t *trace, c *functionCall) error {
	if err := t.enter(ctx, StageVerify); err != nil {
		return err
	}
	r := a.functionOf(c)
	if r == nil {
		return wire.Errorf(wire.CodeInconsistent, "no device belongs to interface %s of this sandbox", c.IfName)
	}
	a.lookAt(t, r.Device)
	if err := a.config.Keeper.Check(ctx, r.Device, r.Owner); err != nil {
		return wire.Errorf(wire.CodeInconsistent, "%v", err)
	}
	leases, err := a.leases(c.own)
	if err != nil {
		return err
	}
	for _, d := range leases {
		if err := a.config.Plugins.Check(ctx, d); err != nil {
			return wire.Errorf(wire.CodeInconsistent, "IPAM: %v", err)
		}
	}
	return nil
}

// collectFunctions gives addresses back that IPAM plugins gave to functions whose sandboxes
// are gone.
func (a *Agent) collectFunctions(ctx context.Context) error {
	leases, err := a.leases(func(d Delegation) bool { return !a.config.Links.Lives(d.Netns) })
	errs := []error{err}
	for _, d := range leases {
		unlock, err := a.functions.lock(ctx, d.Sandbox+" "+d.IfName)
		if err != nil {
			return err
		}
		errs = append(errs, a.config.Plugins.Del(ctx, d))
		unlock()
	}
	return errors.Join(errs...)
}

// withDevice puts a device into the configuration of plugins of others, by the keys that
// Multus sets.
func (c Chain) withDevice(id string) (Chain, error) {
	text, err := json.Marshal(id)
	if err != nil {
		return c, err
	}
	out := Chain{Values: map[string]json.RawMessage{"deviceID": text}}
	for k, v := range c.Values {
		if !strings.EqualFold(k, "deviceID") {
			out.Values[k] = v
		}
	}
	out.List, err = multus.EditPlugins(c.List, func(plugins []json.RawMessage) ([]json.RawMessage, error) {
		for n, text := range plugins {
			var p map[string]json.RawMessage
			if err := json.Unmarshal(text, &p); err != nil {
				return nil, err
			}
			p["deviceID"], p["pciBusID"] = out.Values["deviceID"], out.Values["deviceID"]
			if plugins[n], err = json.Marshal(p); err != nil {
				return nil, err
			}
		}
		return plugins, nil
	})
	return out, err
}

// othersDevice chooses the device of an interface that plugins of others make, and returns
// what they do with it.
func (a *Agent) othersDevice(ctx context.Context, t *trace, e *entry, i *iface) (Chain, error) {
	chain := i.network.Chain
	if i.port.Name != "" || i.network.Resource == "" && i.network.Device == "" {
		return chain, nil
	}
	if a.config.Devices == nil && i.network.Device == "" {
		return chain, fmt.Errorf("it needs a device of resource %s, and this node gives no devices: name the device in the pod's annotation, or take the annotation k8s.v1.cni.cncf.io/resourceName off the definition", i.network.Resource)
	}
	if err := t.enter(ctx, StageChooseDevice); err != nil {
		return chain, err
	}
	i.function = function{}
	c, err := a.choice(ctx, e, i, i.network.Device)
	if err != nil {
		return chain, err
	}
	if c.Device == "" {
		return chain, fmt.Errorf("it needs a device of resource %s, and the pod has none: %s", i.network.Resource, cmp.Or(c.Fallback, "request the resource in one of its containers"))
	}
	i.function.Choice = c
	return chain.withDevice(c.Device)
}
