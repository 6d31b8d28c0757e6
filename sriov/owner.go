package sriov

import "fmt"

// Owner is who has a device.
type Owner struct {
	Sandbox string `json:"sandbox"` // container id
	Pod     string `json:"pod"`     // "namespace/name"
	UID     string `json:"uid,omitempty"`
	NAD     string `json:"nad,omitempty"` // "namespace/name[/index]" of the attachment
	IfName  string `json:"ifname"`        // in the pod
	Netns   string `json:"netns"`         // path of the sandbox's network namespace
	// NetnsID tells that namespace from another one under the same path. It is found
	// when the device is given.
	NetnsID string `json:"netnsID,omitempty"`
}

// String names the owner in messages.
func (o Owner) String() string {
	text := fmt.Sprintf("pod %s, interface %s", o.Pod, o.IfName)
	if o.NAD != "" {
		text += " of " + o.NAD
	}
	return text + fmt.Sprintf(", sandbox %.12s", o.Sandbox)
}

// is reports whether both are one interface of one sandbox.
func (o Owner) is(other Owner) bool { return o.Sandbox == other.Sandbox && o.IfName == other.IfName }

// BusyError is of a device that somebody has who lives. To try again may succeed.
type BusyError struct {
	Device       string
	Owner, Asker Owner
}

// Error names both.
func (e *BusyError) Error() string {
	return fmt.Sprintf("device %s belongs to %s, which lives, and is asked for by %s; try again when that pod is gone; if it stays, the kubelet and the device plugin do not agree on who has it",
		e.Device, e.Owner, e.Asker)
}
