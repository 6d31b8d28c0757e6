package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// nodeDevices is one node's answer.
type nodeDevices struct {
	Node string `json:"node,omitempty"` // empty behind a socket
	inspect.Devices
}

func devicesCommand() *cobra.Command {
	var o reach.Options
	var out output
	cmd := &cobra.Command{
		Use:   "devices [NODE]",
		Short: "Show nodes' device pools, and who has which device",
		Long: `Devices asks agents how each DevicePool stands on their node, and for every device that it offers: what it is,
its NIC, its representor and driver, the pod that has it, and why nobody can be given it.

Kubectl get devicepools has the same of all nodes in a line for each pool; this is what each node's agent sees now.`,
		Example: "  portolan devices\n  kubectl portolan devices worker-1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && o.Node == "" && o.Socket == "" {
				o.Node = args[0]
			}
			list, err := each(cmd.Context(), o, func(ctx context.Context, node string, c *inspect.Client) (nodeDevices, error) {
				d, err := c.Devices(ctx)
				return nodeDevices{node, d}, err
			})
			return errors.Join(err, out.print(cmd.OutOrStdout(), list, func(w io.Writer) { printDevices(w, list) }))
		},
	}
	o.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// printDevices is for people: a line a pool, a line a device.
func printDevices(w io.Writer, list []nodeDevices) {
	for n, node := range list {
		if n > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s:\n", cmp.Or(node.Node, "this node"))
		if len(node.Pools) == 0 {
			fmt.Fprintln(w, "  no DevicePool selects it")
			continue
		}
		pools := table{head: []string{"POOL", "READY", "DEVICES", "WELL", "IN USE", "WHY NOT"}}
		for _, p := range node.Pools {
			why := strings.TrimPrefix(p.Reason+": "+p.Message, ": ")
			if p.Reason != "" && p.Message == "" {
				why = p.Reason
			}
			if len(p.Steps) > 0 {
				why += " (" + strings.Join(p.Steps, "; ") + ")"
			}
			pools.add(p.Name, map[bool]string{true: "yes", false: "no"}[p.Ready], fmt.Sprint(p.Devices), fmt.Sprint(p.Well), fmt.Sprint(p.InUse), dash(why))
		}
		pools.write(w)
		if len(node.Devices.Devices) == 0 {
			continue
		}
		fmt.Fprintln(w)
		devices := table{head: []string{"POOL", "DEVICE", "KIND", "NIC", "REPRESENTOR", "DRIVER", "MODE", "STATE", "POD"}}
		for _, d := range node.Devices.Devices {
			devices.add(d.Pool, d.ID, dash(d.Kind), dash(d.PF), dash(d.Representor), dash(d.Driver), dash(d.Mode), cmp.Or(d.Trouble, "well"), dash(strings.TrimPrefix(d.Holder, "pod ")))
		}
		devices.write(w)
	}
}
