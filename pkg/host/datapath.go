package host

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// ovsFamily is the generic netlink family that the kernel module registers.
const ovsFamily = "ovs_datapath"

// DetectDatapath chooses the kernel datapath where the running kernel has the
// openvswitch module, built in or loaded, and else vswitchd's own. The reason is
// for people. The module is not loaded from here: the agent may not, and the
// DaemonSet that runs vswitchd does it before.
func (k *Kernel) DetectDatapath() (intent.Datapath, string, error) {
	_, err := k.nl.GenlFamilyGet(ovsFamily)
	switch {
	case err == nil:
		return intent.SystemDatapath, "the kernel has the openvswitch datapath", nil
	case errors.Is(err, unix.ENOENT):
		return intent.UserspaceDatapath, "the kernel has no openvswitch datapath (module openvswitch is not loaded): " +
			"packets pass through ovs-vswitchd, which costs CPU; modprobe openvswitch and restart the node to change it", nil
	}
	return "", "", fmt.Errorf("generic netlink family %s: %w", ovsFamily, err)
}
