package devices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/podresources"
)

// wish is a DeviceWish with what is known of its pod.
type wish struct {
	cni.DeviceWish
	kubelet map[string][]string // what it has given the pod; nil where it cannot be asked
}

// Choose implements cni.Devices. A named device must be the pod's, as the kubelet knows
// it. Otherwise the ids of the definition's resource that the kubelet has given the pod
// are paired, sorted, to the interfaces that ask for it, in their order; what an
// interface has already by the records it keeps.
func (d *Devices) Choose(ctx context.Context, w cni.DeviceWish) (cni.Choice, error) {
	c, err := d.choose(ctx, w)
	if err != nil {
		if _, pending := errors.AsType[*cni.PendingError](err); pending {
			return cni.Choice{}, err
		}
		return cni.Choice{}, fmt.Errorf("definition %s: %w", w.Wish.Definition(), err)
	}
	if c.Device != "" {
		d.note(c.Device, w.Wish.Pod.String())
		if d.reserved()[c.Device] { // meanwhile: who reserves one looks then whether it was chosen
			d.note(c.Device, "")
			return cni.Choice{}, fmt.Errorf("definition %s: %w", w.Wish.Definition(), refuseReserved(c.Device))
		}
	}
	return c, nil
}

// note says that a pod is about to get a device; "": none is.
func (d *Devices) note(device, pod string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if pod == "" {
		delete(d.chosen, device)
		return
	}
	d.chosen[device] = chosen{pod, d.config.Now()}
}

func refuseReserved(device string) error {
	return fmt.Errorf("device %s: %s; name another", device, isReserved)
}

func (d *Devices) choose(ctx context.Context, in cni.DeviceWish) (cni.Choice, error) {
	w := wish{DeviceWish: in}
	if w.Named == "" && w.Resource == "" {
		if w.Offload == multus.OffloadRequire {
			return cni.Choice{}, errors.New(`"offload": "require" and no resource: pods get a veth pair, which is not in hardware; name a resource in the annotation k8s.v1.cni.cncf.io/resourceName, or write "prefer"`)
		}
		return cni.Choice{}, nil
	}
	if d.kubelet != nil {
		var err error
		w.kubelet, err = d.kubelet.Of(ctx, w.Wish.Pod.Namespace, w.Wish.Pod.Name)
		if err != nil {
			return cni.Choice{}, d.unanswered(err)
		}
	}
	if w.Named != "" {
		return d.named(w)
	}
	id, err := d.pair(w)
	if err != nil {
		return cni.Choice{}, err
	}
	if id != "" {
		return d.judge(w, id, w.Resource)
	}
	return d.without(ctx, w)
}

// unanswered is an error of asking the kubelet, which may be another one a moment later.
func (d *Devices) unanswered(err error) error {
	if _, twins := errors.AsType[*podresources.AmbiguousError](err); twins {
		return &cni.PendingError{Reason: err.Error()}
	}
	return &cni.PendingError{Reason: "which devices the pod has is not known: " + err.Error()}
}

// named judges a device that the caller, or the definition, names.
func (d *Devices) named(w wish) (cni.Choice, error) {
	id, err := sriov.CanonicalID(w.Named)
	if err != nil {
		return cni.Choice{}, err
	}
	if d.kubelet == nil {
		return d.judge(w, id, w.Resource)
	}
	for _, resource := range slices.Sorted(maps.Keys(w.kubelet)) {
		if slices.ContainsFunc(w.kubelet[resource], func(has string) bool { c, err := sriov.CanonicalID(has); return err == nil && c == id }) {
			return d.judge(w, id, resource)
		}
	}
	return cni.Choice{}, fmt.Errorf("device %s is named for pod %s, and the kubelet has given it none such: it has %s; request the resource in the pod's containers, and name no device that it is not given",
		id, w.Wish.Pod, given(w.kubelet))
}

// pair finds which of the pod's devices an interface gets; "": it has none of the
// resource left.
func (d *Devices) pair(w wish) (string, error) {
	records, err := d.config.Records.Records()
	if err != nil {
		return "", err
	}
	left := slices.Clone(w.kubelet[w.Resource])
	slices.Sort(left)
	taken := map[string]bool{}
	for _, id := range w.Has {
		taken[id] = true
	}
	for _, r := range records {
		switch {
		case r.Owner.UID == "" || r.Owner.UID != w.Wish.Pod.UID:
		case r.Owner.NAD != w.Wish.Key:
			taken[r.Device] = true
		case slices.Contains(left, r.Device) && !taken[r.Device]:
			return r.Device, nil
		}
	}
	for _, id := range left {
		if !taken[id] {
			return id, nil
		}
	}
	return "", nil
}

// without decides about an interface whose pod has no device left of the definition's
// resource: one that has asked for too few made a mistake, and one that has asked for
// none gets a veth pair where the definition lets it.
func (d *Devices) without(ctx context.Context, w wish) (cni.Choice, error) {
	pod := w.Wish.Pod
	if d.kubelet == nil {
		why := fmt.Sprintf("nothing allocates devices of %s here: there is no kubelet, and no deviceID was given", w.Resource)
		return fallBack(w, why)
	}
	if w.Offload == multus.OffloadOff {
		return cni.Choice{}, nil
	}
	has := w.kubelet[w.Resource]
	requested, known := int64(0), false
	if d.config.Requests != nil {
		all, err := d.config.Requests(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return cni.Choice{}, &cni.PendingError{Reason: fmt.Sprintf("what pod %s requests of %s is not known: %v", pod, w.Resource, err)}
		}
		requested, known = all[w.Resource], true
	}
	switch {
	case known && requested > int64(len(has)):
		return cni.Choice{}, &cni.PendingError{Reason: fmt.Sprintf("definition %s: pod %s requests %d of resource %s, and the kubelet has given it %s yet",
			w.Wish.Definition(), pod, requested, w.Resource, given(map[string][]string{w.Resource: has}))}
	case len(has) > 0:
		return cni.Choice{}, fmt.Errorf("no device of resource %s is left for it: pod %s has %s, and its other interfaces have them (%s); request one for each of its networks that has this resource",
			w.Resource, pod, given(map[string][]string{w.Resource: has}), others(w.Has))
	}
	text := fmt.Sprintf("the definition names resource %s: pod %s requests none of it in its containers' resources, and the kubelet has given it %s", w.Resource, pod, given(w.kubelet))
	return fallBack(w, text)
}

// fallBack gives a veth pair, unless the definition requires hardware.
func fallBack(w wish, why string) (cni.Choice, error) {
	if w.Offload == multus.OffloadRequire {
		return cni.Choice{}, fmt.Errorf(`"offload": "require": %s; request the resource, or write "prefer"`, why)
	}
	if w.Offload == multus.OffloadOff {
		return cni.Choice{}, nil
	}
	return cni.Choice{Fallback: why + ": the interface is a veth pair"}, nil
}

// judge looks at a device that is the pod's.
func (d *Devices) judge(w wish, id, resource string) (cni.Choice, error) {
	for key, other := range w.Has {
		if other == id && key != w.Wish.Key {
			return cni.Choice{}, fmt.Errorf("device %s is that of the pod's interface on %s already: request one for each network", id, key)
		}
	}
	dev, err := d.config.Inventory.Resolve(id)
	if err != nil {
		return cni.Choice{}, err
	}
	if d.reserved()[dev.ID] {
		return cni.Choice{}, refuseReserved(dev.ID)
	}
	c := cni.Choice{Device: dev.ID, Resource: resource}
	d.mu.Lock()
	o, pooled := d.offers[dev.ID]
	d.mu.Unlock()
	if pooled && c.Resource == "" {
		c.Resource = o.pool.Resource
	}
	switch w.Offload {
	case multus.OffloadRequire:
		if err := d.hardware(dev); err != nil {
			return cni.Choice{}, fmt.Errorf(`"offload": "require": %w`, err)
		}
	case multus.OffloadOff:
		if dev.Kind != sriov.Soft && dev.Mode == sriov.Switchdev {
			return cni.Choice{}, nil // its NIC would move the packets
		}
	default:
		if dev.Kind == sriov.Soft {
			c.Fallback = fmt.Sprintf("device %s is soft, a veth pair that plays a function of a NIC: no flow of it is in hardware", dev.ID)
		}
	}
	if pooled {
		if c.Encap, err = d.encap(o.pool, dev); err != nil {
			return cni.Choice{}, err
		}
	}
	return c, nil
}

// hardware says why no flow of a device would be in hardware.
func (d *Devices) hardware(dev sriov.Device) error {
	switch {
	case dev.Kind == sriov.Soft:
		return fmt.Errorf("device %s is soft, a veth pair: no flow of it is in hardware; use a pool of kind nic, or write \"prefer\"", dev.ID)
	case dev.Mode != sriov.Switchdev:
		return fmt.Errorf("device %s: its NIC %s is in %s mode, where Open vSwitch sees none of its packets; set mode switchdev in the DevicePool", dev.ID, nameOf(dev.PF), dev.Mode)
	}
	for _, name := range []string{dev.PF.Netdev, dev.Representor} {
		if name == "" {
			return errors.Join(fmt.Errorf("device %s: its NIC's network device, or its representor, is not here: look whether it was moved to another network namespace", dev.ID), dev.Fault())
		}
		if on, err := d.config.Kernel.Offload(name); err != nil || !on {
			return fmt.Errorf("device %s: hw-tc-offload of %s is off (ethtool -K %s hw-tc-offload on turns it on, or a DevicePool with mode switchdev): %w", dev.ID, name, name, errors.Join(err, errOff))
		}
	}
	if d.config.Software != nil {
		if err := d.config.Software(); err != nil {
			return fmt.Errorf("device %s: %w", dev.ID, err)
		}
	}
	return nil
}

// Given implements cni.Devices.
func (d *Devices) Given(ctx context.Context, p cni.Pod) string {
	if d.kubelet == nil {
		return "there is no kubelet that gives it any"
	}
	list, err := d.kubelet.Of(ctx, p.Namespace, p.Name)
	if err != nil {
		return "what the kubelet has given it is not known: " + err.Error()
	}
	return "the kubelet has given it " + given(list)
}

// errOff is of a feature that is off.
var errOff = errors.New("nothing is handed to the NIC")

// given is devices by resource, as text.
func given(list map[string][]string) string {
	var parts []string
	for _, resource := range slices.Sorted(maps.Keys(list)) {
		if ids := slices.Sorted(slices.Values(list[resource])); len(ids) > 0 {
			parts = append(parts, fmt.Sprintf("%s of %s", strings.Join(ids, ", "), resource))
		}
	}
	if len(parts) == 0 {
		return "no device"
	}
	return strings.Join(parts, "; ")
}

// others are the devices of a pod's other interfaces, as text.
func others(has map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(has)) {
		if has[key] != "" {
			parts = append(parts, key+": "+has[key])
		}
	}
	return strings.Join(parts, ", ")
}
