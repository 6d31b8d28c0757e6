package sriov

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A soft device's id is "soft-" and a label; its ends are "sv-" and "sr-" and the label.
// The representor's end never has another name, so that the device is found also while
// the other end is in a pod under the pod's name.
const (
	softPrefix        = "soft-"
	softNetdevPrefix  = "sv-"
	softSwitchPrefix  = "sr-"
	longestSoftSuffix = 12 // with a prefix it is a network device's name, of 15 bytes
)

var softLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// SoftID is the id of the soft device of a label, of at most 12 bytes.
func SoftID(label string) (string, error) {
	if len(label) > longestSoftSuffix || !softLabel.MatchString(label) {
		return "", fmt.Errorf("soft device %.64q: give it a label of at most %d lower-case letters, digits and inner dashes", label, longestSoftSuffix)
	}
	return softPrefix + label, nil
}

// SoftNames are the names of a soft device's ends: of the one that a pod gets while no
// pod has it, and of its representor.
func SoftNames(id string) (netdev, representor string, err error) {
	label := strings.TrimPrefix(id, softPrefix)
	if want, err := SoftID(label); err != nil || want != id {
		return "", "", &DeviceError{fmt.Sprintf("%.64q", id), "id", "it is no soft device's", "give soft- and a label, such as soft-a-0", ErrNotFound}
	}
	return softNetdevPrefix + label, softSwitchPrefix + label, nil
}

// soft reads a soft device.
func (i *Inventory) soft(id string) (Device, error) {
	function, representor, err := SoftNames(id)
	if err != nil {
		return Device{}, err
	}
	d := Device{ID: id, Kind: Soft, Mode: Switchdev, Driver: "veth", Representor: representor, NUMA: -1}
	if !i.sys.exists(netdev(representor)) {
		return Device{}, &DeviceError{id, i.sys.path(netdev(representor)), "it does not exist", "look at the DevicePool of kind soft that should have made it", ErrNotFound}
	}
	if i.sys.exists(netdev(function)) {
		d.Netdev = function
	}
	return d, nil
}

func (i *Inventory) softIDs() ([]string, error) {
	names, err := i.sys.names("class", "net")
	var out []string
	for _, n := range names {
		if label, ok := strings.CutPrefix(n, softSwitchPrefix); ok && softLabel.MatchString(label) {
			out = append(out, softPrefix+label)
		}
	}
	return out, err
}

// SoftDevices lists the soft devices whose representor is in a link group: 0 is that of
// devices that nobody has put into one.
func (i *Inventory) SoftDevices(group uint32) ([]string, error) {
	ids, err := i.softIDs()
	return slices.DeleteFunc(ids, func(id string) bool {
		_, representor, err := SoftNames(id)
		return err != nil || i.sys.number(0, netdev(representor), "netdev_group") != int(group)
	}), err
}
