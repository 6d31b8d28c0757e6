// Package cli is the lab's command line: it reads flags and environment into
// values, and asks package cluster.
package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/cluster"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/nodeinit"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/trunk"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Config is where the lab lives, from the environment and flags.
type Config struct {
	Repo  string // checkout; empty: found from this binary or the working directory
	Cache string
	State string
	Run   string
}

// Command is the lab's root command.
func Command(c Config) *cobra.Command {
	root := &cobra.Command{Use: "lab", Short: "a real Kubernetes cluster on this machine", SilenceUsage: true, SilenceErrors: true}
	lab := func() (*cluster.Lab, error) {
		repo, err := build.FindRepo(c.Repo)
		if err != nil {
			return nil, err
		}
		b := build.Builder{Repo: repo, Cache: cache.Store{Dir: c.Cache}, Log: filepath.Join(c.State, "log"), Out: os.Stderr}
		return cluster.New(cluster.Dirs{State: c.State, Run: c.Run}, b, os.Stdout), nil
	}
	root.AddCommand(upCommand(lab), downCommand(lab), statusCommand(lab), optionsCommand(lab), logsCommand(lab), imageCommand(lab),
		crashCommand(lab), bootCommand(lab), conformanceCommand(lab), ovnRootCommand(lab), kubeCommand(lab), multusCommand(lab))
	root.AddCommand(insideCommands(lab)...)
	root.AddCommand(stateCommands()...)
	root.AddCommand(
		hidden(node.StageCommand, func(_ *cobra.Command, args []string) error { return node.Stage(args[0]) }),
		&cobra.Command{Use: trunk.Command + " PROGRAM …", Hidden: true, DisableFlagParsing: true, RunE: func(_ *cobra.Command, args []string) error { return trunk.Become(args) }},
		hidden(node.InitCommand, func(_ *cobra.Command, args []string) error { return nodeinit.Run(args[0]) }))
	return root
}

// source gives the lab when a command runs, so that help works anywhere.
type source func() (*cluster.Lab, error)

func hidden(name string, run func(*cobra.Command, []string) error) *cobra.Command {
	return &cobra.Command{Use: name + " STATE", Hidden: true, Args: cobra.ExactArgs(1), RunE: run}
}

func upCommand(lab source) *cobra.Command {
	var o plan.Options
	var keep bool
	cmd := &cobra.Command{Use: "up", Short: "bring the lab up, if it is not", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		l.Keep = keep
		if o.Zone == "global" && o.Databases == 0 {
			o.Databases = 1
		}
		return l.Up(cmd.Context(), o)
	}}
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	f.StringVar(&o.Zone, "zone", "node", "Portolan's zones: node or global")
	f.IntVar(&o.Databases, "databases", 0, "with --zone global, how many nodes serve the databases: 1 (default) or 3")
	f.BoolVar(&o.Insecure, "insecure-databases", false, "with --zone global, serve the databases on plain TCP")
	f.StringVar(&o.Families, "families", plan.IPv4, "address families: ipv4, ipv6 or dual")
	f.StringVar(&o.CNI, "cni", plan.Portolan, "network: portolan (from deploy/), standin (a bridge), none")
	f.StringVar(&o.Multus, "multus", "", "Multus as the cluster's CNI, which calls Portolan: thin or thick; default: Portolan attaches all networks itself")
	f.BoolVar(&keep, "keep", false, "leave a lab that failed to come up, to look at it")
	return cmd
}

func downCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "down", Short: "end the lab and remove everything of it but its logs", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		return l.Down(cmd.Context())
	}}
}

func statusCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "show what runs", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		return l.Status(cmd.Context())
	}}
}

func optionsCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "options", Short: "print the options of the lab that is up, as JSON", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		p, err := l.Plan()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(p.Options)
	}}
}

func logsCommand(lab source) *cobra.Command {
	var lines int
	cmd := &cobra.Command{Use: "logs [NODE…]", Short: "print the logs of nodes, pods and builds", RunE: func(_ *cobra.Command, args []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		return l.Logs(args, lines)
	}}
	cmd.Flags().IntVar(&lines, "lines", 50, "last lines of each file; 0: all")
	return cmd
}

func imageCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "image portolan|FILE", Short: "rebuild Portolan's image, or take a docker-archive, and import it into all nodes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab()
			if err != nil {
				return err
			}
			return l.Image(cmd.Context(), args[0])
		}}
}

func crashCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "crash NODE", Short: "kill everything of a node at once", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		return l.Crash(cmd.Context(), args[0])
	}}
}

func bootCommand(lab source) *cobra.Command {
	var wait bool
	var now cluster.Renamed
	cmd := &cobra.Command{Use: "boot NODE", Short: "start a crashed node, also under another name or address", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		return l.Boot(cmd.Context(), args[0], wait, now)
	}}
	cmd.Flags().BoolVar(&wait, "wait", false, "return when the node's kubelet answers")
	cmd.Flags().StringVar(&now.As, "as", "", "the name that it registers by; empty: its own")
	cmd.Flags().Uint8Var(&now.Last, "last", 0, "the number that its addresses end in; 0: its own")
	return cmd
}

// become replaces this process, so that terminals, signals and exit codes are the program's.
func become(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}

// inNamespace is the command line that runs argv on a host that is only a network.
func inNamespace(host string, argv []string) []string {
	return append([]string{"nsenter", "--net=" + wire.Path(wire.Namespace(host)), "--"}, argv...)
}
