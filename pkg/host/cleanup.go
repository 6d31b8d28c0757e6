package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/durable"
)

// Cleanup undoes everything: addresses, routes, rules, sysctls and nftables of
// ours, the NIC as it was before it was taken over, the bridges and settings in
// the OVS database. The keys are those of ours in the Open_vSwitch row. It goes on
// after errors and can be run again.
func Cleanup(ctx context.Context, k *Kernel, ovs *OVS, externalIDs, otherConfig []string) error {
	g, found, err := k.loadGateway()
	if err != nil {
		return err
	}
	_, err = k.Set(ctx, Config{})
	errs := []error{err, k.ReturnManagement()}
	if found {
		errs = append(errs, k.restore(g))
	}
	errs = append(errs, ovs.RemoveOurs(ctx, externalIDs, otherConfig))
	if err = errors.Join(errs...); err != nil {
		return err // the files are what the next run starts from
	}
	for _, name := range []string{gatewayFile, recordFile, wiresFile} {
		err = errors.Join(err, durable.Remove(filepath.Join(k.record.dir, name)))
	}
	return err
}

// restore gives the NIC back what it had. What it has already is left.
func (k *Kernel) restore(g Gateway) error {
	l, err := k.nl.LinkByName(g.NIC)
	if err != nil {
		return fmt.Errorf("NIC %s: %w", g.NIC, err)
	}
	errs := []error{k.nl.LinkSetUp(l)}
	if mac, err := net.ParseMAC(g.MAC); err == nil && l.Attrs().HardwareAddr.String() != g.MAC {
		errs = append(errs, k.nl.LinkSetHardwareAddr(l, mac))
	}
	for _, a := range g.Addresses {
		if err := k.nl.AddrReplace(l, newAddr(a)); err != nil {
			errs = append(errs, fmt.Errorf("NIC %s: add %s: %w", g.NIC, a, err))
		}
	}
	for _, r := range g.Routes {
		n := r.Route.netlink(l)
		n.Protocol = netlink.RouteProtocol(r.Protocol)
		if err := k.nl.RouteReplace(n); err != nil {
			errs = append(errs, fmt.Errorf("NIC %s: route %s: %w", g.NIC, r.Dst, err))
		}
	}
	return errors.Join(errs...)
}
