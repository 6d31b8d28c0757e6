package host

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// reread is how often the OVS database's copy is looked at without a notice,
// which can get lost.
const reread = time.Second

// Node is what a Runner keeps.
type Node struct {
	Name       string
	Gateway    Gateway
	Management Management
	Datapath   intent.Datapath
}

// Runner is the node's host side at work: it moves the node's addresses once
// vswitchd has the NIC, keeps them, and loads the gateway bridge's flows as its
// ports come.
type Runner struct {
	kernel *Kernel
	ovs    *OVS
	Keeper *Keeper
	Loader *FlowLoader
	log    *slog.Logger
	node   *latest[Node]
	loan   *loan // between declarations and the keeper

	// Of watch's goroutine alone.
	attached bool
	gateway  time.Time // since when a vswitchd that waits has the gateway's flows; zero: it has not
	flows    GatewayFlows
	nicError string

	mu       sync.Mutex     // guards problems
	problems []rows.Problem // of the last look
}

// NewRunner makes a runner. bridge is the gateway's, ours or not; runDir is where
// vswitchd has its sockets (/run/openvswitch).
func NewRunner(k *Kernel, ovs *OVS, bridge, runDir string, log *slog.Logger) *Runner {
	keeper := NewKeeper(k, log)
	return &Runner{
		kernel: k, ovs: ovs, Keeper: keeper, Loader: NewFlowLoader(bridge, runDir, log), log: log, node: newLatest[Node](),
		loan: &loan{kernel: k, keeper: keeper, log: log},
	}
}

// Declare gives what to keep; it returns at once. What was found about a gateway
// that is ours must have been saved before (SaveGateway).
func (r *Runner) Declare(n Node) { r.node.put(n) }

// Problems tells what keeps the host from being as declared.
func (r *Runner) Problems() []rows.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problems
}

// Run keeps the node until ctx ends. Nothing is undone then: the datapath goes on.
func (r *Runner) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { r.Keeper.Run(ctx) })
	wg.Go(func() { r.Loader.Run(ctx) })
	wg.Go(func() { r.loan.run(ctx) })
	r.watch(ctx)
	wg.Wait()
}

func (r *Runner) watch(ctx context.Context) {
	tick := time.NewTicker(reread)
	defer tick.Stop()
	changed := r.ovs.Changed()
	seen := 0
	for {
		if n, version := r.node.get(); version > 0 {
			r.look(ctx, n, version != seen)
			seen = version
		}
		var again <-chan time.Time
		if !r.release(ctx) {
			again = time.After(releasePace)
		}
		select {
		case <-again:
		case <-ctx.Done():
			return
		case <-r.node.changed():
		case <-changed:
		case <-tick.C:
		}
	}
}

// releasePace is how often it is looked whether a vswitchd that waits for its flows
// has them.
const releasePace = 50 * time.Millisecond

// flowsOfOVN is how long a vswitchd that has the gateway's flows waits for br-int's:
// an ovn-controller that has been started too takes its time before it writes
// (ovn-ofctrl-wait-before-clear), and the node itself is cut off meanwhile.
const flowsOfOVN = 2 * time.Second

// release lets a vswitchd that has started, and waits, move packets once it has all
// flows: the gateway's, and ovn-controller's, which come in one bundle. It reports
// whether nothing waits.
func (r *Runner) release(ctx context.Context) bool {
	if !r.ovs.Holding(ctx) {
		return true
	}
	if !r.Loader.Current() {
		r.gateway = time.Time{}
		return false
	}
	if r.gateway.IsZero() {
		r.gateway = time.Now()
	}
	n, err := r.Loader.Flows(ctx, intent.IntegrationBridge)
	if (err != nil || n == 0) && time.Since(r.gateway) < flowsOfOVN {
		return false
	}
	if err := r.ovs.ReleasePackets(ctx); err != nil {
		r.log.Error("vswitchd not released", "error", err)
		return false
	}
	r.gateway = time.Time{}
	r.log.Info("vswitchd has its flows again", "of_ovn", n)
	return true
}

// look compares the bridge with what was declared last and declares what follows.
func (r *Runner) look(ctx context.Context, n Node, fresh bool) {
	b, found, err := r.ovs.Bridge(ctx, n.Gateway.Bridge)
	if err != nil {
		r.log.Error("OVS database not read", "error", err)
		return
	}
	nic := b.Ports[n.Gateway.NIC]
	r.note(n, nic)
	// The NIC's addresses go only when vswitchd has it, or the node is cut off;
	// once gone they stay, whatever the bridge goes through.
	was := r.attached
	r.attached = was || n.Gateway.Foreign != "" || nic.Number > 0 || n.Gateway.Resumed && found
	if n.Gateway.Resumed && !found && !was && fresh {
		r.giveBack(n.Gateway)
	}
	if r.attached && (fresh || !was) {
		r.loan.declare(n.Gateway, Declare(n.Gateway, n.Management, n.Datapath))
	}
	if nic.Number > 0 {
		r.declareFlows(n, nic.Number, b.Ports[PatchPort(n.Gateway.Bridge, n.Name)].Number)
	}
}

// giveBack undoes a takeover whose bridge has gone from the OVS database: the
// node must reach the API server before the bridge can be made again.
func (r *Runner) giveBack(g Gateway) {
	if err := r.kernel.restore(g); err != nil {
		r.log.Error("NIC not restored", "nic", g.NIC, "error", err)
	}
}

func (r *Runner) declareFlows(n Node, nic, ovn int) {
	if ovn == 0 {
		// Not made yet; or being read again after the database's connection broke,
		// and then to forget it would cut pods off.
		ovn = r.flows.OVN
	}
	f := GatewayFlows{NIC: nic, OVN: ovn, MAC: n.Gateway.MAC, Zone: GatewayZone}
	for _, a := range n.Gateway.Addresses {
		f.Addresses = append(f.Addresses, a.Addr())
	}
	if !f.equal(r.flows) {
		r.flows = f
		r.Loader.Declare(f.Text())
	}
}

// note keeps what vswitchd says of the NIC as a problem.
func (r *Runner) note(n Node, nic BridgePort) {
	var ps []rows.Problem
	if nic.Error != "" {
		ps = []rows.Problem{{Object: "Node/" + n.Name, Field: "gateway", Severity: rows.Error,
			Message: fmt.Sprintf("ovs-vswitchd cannot open NIC %s: %s; the NIC keeps the node's addresses", n.Gateway.NIC, nic.Error)}}
	}
	if nic.Error != r.nicError && nic.Error != "" {
		r.log.Error("NIC not in the bridge", "nic", n.Gateway.NIC, "bridge", n.Gateway.Bridge, "error", nic.Error)
	}
	r.nicError = nic.Error
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = ps
}

// PatchPort is the name that ovn-controller gives the gateway bridge's end of its
// patch to br-int, after the localnet port BRIDGE_NODE.
func PatchPort(bridge, node string) string {
	return "patch-" + bridge + "_" + node + "-to-" + intent.IntegrationBridge
}

func (f GatewayFlows) equal(g GatewayFlows) bool {
	return f.NIC == g.NIC && f.OVN == g.OVN && f.MAC == g.MAC && f.Zone == g.Zone && slices.Equal(f.Addresses, g.Addresses)
}
