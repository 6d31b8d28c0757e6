package main

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/compile/vswitch"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// cleanup puts the node back: the runtime is told first, the NIC gets its
// addresses and routes, and what was installed is removed. It goes on at errors
// and may be run again.
func cleanup(ctx context.Context, cfg *Config) error {
	errs := []error{cni.RemoveConflist(filepath.Join(cfg.CNIConfDir, filepath.Base(cni.DefaultConflist)))}
	kernel, err := host.Open(cfg.StateDir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer kernel.Close()
	ovs, err := host.OpenOVS(ctx, cfg.OVS)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer ovs.Close()
	ids, config := settings()
	errs = append(errs, host.Cleanup(ctx, kernel, ovs, ids, config))
	if err := os.Remove(filepath.Join(cfg.CNIBinDir, cni.BinaryName)); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// settings are the keys of the Open_vSwitch row that are ours: what the unit says
// of a machine with every fact known.
func settings() (externalIDs, otherConfig []string) {
	store := intent.NewStore()
	store.Put(&intent.Cluster{Zone: "x"})
	store.Put(&intent.Host{
		Node: "x", Chassis: "x", Datapath: intent.SystemDatapath, Bridge: "x", Remote: "x",
		EncapIPs: []netip.Addr{netip.IPv6Loopback()},
	})
	for _, e := range vswitch.Compile(intent.NewView(store), "x").Edges {
		switch e.Column {
		case "external_ids":
			externalIDs = append(externalIDs, e.Key.Str)
		case "other_config":
			otherConfig = append(otherConfig, e.Key.Str)
		}
	}
	return externalIDs, otherConfig
}
