package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/compile/vswitch"
	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// plan is what the Cluster file says; nothing where it cannot be read any more.
func (c *Config) plan() *intent.Cluster {
	spec, err := kube.ReadCluster(c.File)
	if err != nil {
		return &intent.Cluster{}
	}
	plan, _ := kube.ParseCluster(spec) // what of it cannot be parsed was never in force
	return plan
}

// cleanup puts the node back: the runtime is told first, the NIC gets its
// addresses and routes, and what was installed is removed. It goes on at errors
// and may be run again.
func cleanup(ctx context.Context, cfg *Config) error {
	fence, err := cfg.fence(ctx)
	if err != nil {
		return err // an agent at work would undo the clean-up as it goes
	}
	defer fence.Close()
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
	ids, config := vswitch.Settings(cfg.plan())
	errs = append(errs, host.Cleanup(ctx, kernel, ovs, ids, config))
	errs = append(errs, cfg.removeDevices(), cni.RemoveNames(cfg.CNIBinDir, multus.OurTypes()), cni.RemoveCopy(cfg.CNIBinDir, cni.TypeSRIOV))
	for _, file := range []string{filepath.Join(cfg.CNIBinDir, cni.BinaryName), cfg.journal(), cfg.repairs()} {
		errs = append(errs, durable.Remove(file))
	}
	return errors.Join(errs...)
}
