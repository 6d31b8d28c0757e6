package cli

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// insideCommands run a program at some place of the lab, and become it.
func insideCommands(lab source) []*cobra.Command {
	kubectl := passThrough("kubectl …", "run kubectl as administrator", func(args []string) ([]string, error) {
		l, err := lab()
		if err != nil {
			return nil, err
		}
		kube, err := l.Kube()
		if err != nil {
			return nil, err
		}
		return l.KubectlArgs(kube, args...), nil
	})
	portolan := passThrough("portolan …", "run portolan as administrator", func(args []string) ([]string, error) {
		l, err := lab()
		if err != nil {
			return nil, err
		}
		return l.PortolanArgs(args...), nil
	})
	exec := passThrough("exec NODE|client|wire|wire100 -- COMMAND", "run a command on a node or on an outside host", func(args []string) ([]string, error) {
		if len(args) > 1 && args[1] == "--" {
			args = append(args[:1:1], args[2:]...)
		}
		if len(args) == 0 {
			return nil, errors.New("exec: on which node? exec NODE|client|wire|wire100 -- COMMAND")
		}
		if len(args) == 1 {
			args = append(args, "bash")
		}
		return at(lab, args[0], args[1:])
	})
	capture := passThrough("capture NODE|client|wire|wire100 [TCPDUMP ARGS]", "run tcpdump on a node", func(args []string) ([]string, error) {
		if len(args) == 0 {
			return nil, errors.New("capture: on which node? capture NODE -i eth0 …")
		}
		return at(lab, args[0], append([]string{"tcpdump", "-n", "-l"}, args[1:]...))
	})
	vsctl := passThrough("vsctl NODE …", "run ovs-vsctl on a node", func(args []string) ([]string, error) {
		if len(args) == 0 {
			return nil, errors.New("vsctl: on which node? vsctl NODE show")
		}
		return at(lab, args[0], append([]string{"ovs-vsctl", "--db=unix:/run/openvswitch/db.sock"}, args[1:]...))
	})
	return []*cobra.Command{kubectl, portolan, exec, capture, vsctl,
		database(lab, "nbctl", []string{"ovn-nbctl", "--db=unix:/run/ovn/ovnnb_db.sock"}),
		database(lab, "sbctl", []string{"ovn-sbctl", "--db=unix:/run/ovn/ovnsb_db.sock"})}
}

// database runs an OVN tool on the node whose databases are asked for; without
// --node on the control plane, which has them in both zone layouts.
func database(lab source, name string, tool []string) *cobra.Command {
	return passThrough(name+" [--node NODE] …", "run "+tool[0]+" on a node's database", func(args []string) ([]string, error) {
		l, err := lab()
		if err != nil {
			return nil, err
		}
		p, err := l.Plan()
		if err != nil {
			return nil, err
		}
		where := ""
		if len(args) > 1 && args[0] == "--node" {
			where, args = args[1], args[2:]
		}
		where, more := server(p, where)
		return node.Enter(where, slices.Concat(tool, more, args))
	})
}

// server is the node that has the databases of a node's zone, and what a tool must
// be told there: the servers of a global zone are on its first nodes, and each of
// several answers for all.
func server(p plan.Plan, name string) (string, []string) {
	var serving []string
	for _, n := range p.Machines {
		if p.Zone != "global" || len(serving) < p.Databases {
			serving = append(serving, n.Name)
		}
	}
	if name == "" || p.Zone == "global" && !slices.Contains(serving, name) {
		name = serving[0]
	}
	if p.Databases > 1 {
		return name, []string{"--no-leader-only"}
	}
	return name, nil
}

// at is the command line that runs argv on a node or an outside host.
func at(lab source, where string, argv []string) ([]string, error) {
	l, err := lab()
	if err != nil {
		return nil, err
	}
	p, err := l.Plan()
	if err != nil {
		return nil, err
	}
	return place(p, where, argv)
}

func place(p plan.Plan, where string, argv []string) ([]string, error) {
	if slices.Contains(p.OnlyNetwork(), where) {
		return inNamespace(where, argv), nil
	}
	if _, err := p.Node(where); err != nil {
		return nil, err
	}
	return node.Enter(where, argv)
}

// passThrough leaves all flags to the program that is run.
func passThrough(use, short string, line func(args []string) ([]string, error)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, DisableFlagParsing: true, RunE: func(cmd *cobra.Command, args []string) error {
		argv, err := line(args)
		if err != nil {
			return err
		}
		return become(argv)
	}}
}
