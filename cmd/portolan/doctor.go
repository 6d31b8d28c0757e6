package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/doctor"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// examination are the flags of doctor.
type examination struct {
	out      output
	config   string
	nodeIP   string
	root     string
	stateDir string
	nodePort string
}

func doctorCommand() *cobra.Command {
	x := examination{nodePort: "30000-32767", stateDir: "/var/lib/portolan", root: "/"}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether this machine can be a node, and say what to change",
		Long: `Doctor looks at the machine that it runs on and changes nothing: kernel and OVS
datapath, the NIC and who holds it, MTU, ports, the runtime, what other plugins have
left, sysctls, clock. It is for before the installation, and for nodes that do not
become ready. Run it as root on the node, or in a privileged pod of the host's
network and processes with --host-root=/proc/1/root. The exit status is 1 if
something fails.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return x.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	x.out.addFlag(f)
	f.StringVar(&x.config, "config", "", "Cluster `file`: what the cluster asks of a node; default: /etc/portolan/cluster.yaml where it is there")
	f.StringVar(&x.nodeIP, "node-ip", "", "the node's `address`, by which the NIC is found; default: by the default route")
	f.StringVar(&x.root, "host-root", x.root, "the machine's file system, as seen from here (a `directory`)")
	f.StringVar(&x.stateDir, "state-dir", x.stateDir, "`directory` in which portolan-node keeps its state")
	f.StringVar(&x.nodePort, "node-ports", x.nodePort, "the API server's --service-node-port-range, as `FIRST-LAST`")
	return cmd
}

func (x examination) run(ctx context.Context, out io.Writer) error {
	plan, err := x.plan()
	if err != nil {
		return err
	}
	kernel, err := host.Open(x.stateDir)
	if err != nil {
		return err
	}
	defer kernel.Close()
	m := doctor.Machine{
		Root: x.root, Proc: "/proc", Kernel: kernel, Links: doctor.Links, Dial: dial, InPod: inImage(),
		Version: func(path string) (string, error) {
			text, err := exec.CommandContext(ctx, path, "--version").Output()
			return strings.TrimSpace(string(text)), err
		},
		Tool:   func(name string) error { _, err := exec.LookPath(name); return err },
		Chains: chains,
	}
	if ovs := openOVS(ctx); ovs != nil {
		defer ovs.Close()
		m.BridgeNIC = ovs.BridgeNIC
	}
	if x.nodeIP != "" {
		if m.NodeIP, err = netip.ParseAddr(x.nodeIP); err != nil {
			return fmt.Errorf("--node-ip: %w", err)
		}
	}
	checks := doctor.Run(ctx, m, plan)
	if err := x.out.print(out, checks, func(w io.Writer) { printChecks(w, checks) }); err != nil {
		return err
	}
	if doctor.Failed(checks) {
		return exitCode(1)
	}
	return nil
}

// openOVS connects to the machine's Open vSwitch; nil where there is none.
func openOVS(ctx context.Context) *host.OVS {
	const socket = "/run/openvswitch/db.sock"
	if _, err := os.Stat(socket); err != nil {
		return nil
	}
	ovs, err := host.OpenOVS(ctx, "unix:"+socket)
	if err != nil {
		return nil
	}
	return ovs
}

// defaultConfig is where the agent's container has the Cluster file.
const defaultConfig = "/etc/portolan/cluster.yaml"

// plan reads what the cluster asks of a node.
func (x examination) plan() (doctor.Plan, error) {
	p := doctor.Plan{}
	if _, err := fmt.Sscanf(x.nodePort, "%d-%d", &p.NodePorts[0], &p.NodePorts[1]); err != nil {
		return p, fmt.Errorf("--node-ports %s: wanted FIRST-LAST", x.nodePort)
	}
	file := x.config
	if file == "" {
		if _, err := os.Stat(defaultConfig); err != nil {
			return p, nil
		}
		file = defaultConfig
	}
	spec, err := kube.ReadCluster(file)
	if err != nil {
		return p, err
	}
	plan, problems := kube.ParseCluster(spec)
	for _, problem := range problems {
		return p, fmt.Errorf("%s: %s: %s", file, problem.Field, problem.Message)
	}
	p.Interface, p.Bridge, p.Takeover = spec.Spec.Gateway.Interface, spec.Spec.Gateway.Bridge, spec.Spec.Gateway.Takeover == "force"
	p.Datapath, p.MTU, p.GlobalZone = intent.Datapath(spec.Spec.Datapath), spec.Spec.MTU, plan.GlobalZone
	p.ExternalPorts = [2]int{int(plan.ExternalPort[0]), int(plan.ExternalPort[1])}
	for _, s := range plan.PodSubnets {
		p.IPv6 = p.IPv6 || s.Addr().Is6()
	}
	if u, err := url.Parse(spec.Spec.APIServer); err == nil {
		p.APIServer = u.Host
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
			for _, s := range plan.ServiceNets {
				p.APIServerInside = p.APIServerInside || s.Contains(ip)
			}
		}
	}
	return p, nil
}

func dial(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// inImage tells a container of Portolan's image from a machine.
func inImage() bool {
	_, err := os.Stat("/usr/bin/portolan-node")
	return err == nil
}

var chainName = regexp.MustCompile(`(?m)^\s*chain (\S+) \{`)

// chains lists all nftables chains, those that iptables-nft makes among them.
func chains(ctx context.Context) ([]string, error) {
	text, err := exec.CommandContext(ctx, "nft", "list", "chains").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(text)))
	}
	var names []string
	for _, m := range chainName.FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	return names, nil
}

func printChecks(w io.Writer, checks []doctor.Check) {
	counts := map[doctor.State]int{}
	for _, c := range checks {
		counts[c.State]++
		fmt.Fprintf(w, "%-4s  %-17s  %s\n", c.State, c.Name, c.Found)
		for line := range strings.Lines(c.Do) {
			fmt.Fprintf(w, "%25s%s\n", "", strings.TrimRight(line, "\n"))
		}
	}
	fmt.Fprintf(w, "\n%d ok, %d warnings, %d fail\n", counts[doctor.OK], counts[doctor.Warn], counts[doctor.Fail])
}
