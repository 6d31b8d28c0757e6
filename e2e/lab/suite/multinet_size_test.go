package suite

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// TestMultinetBroadcast counts what a broadcast costs on a layer2 network over three
// nodes: one tunnel packet for each pod elsewhere where zones are nodes, one for each
// node where there is one zone (decision 24). It arrives once at each pod. More than
// the meter passes is dropped where it is sent.
func TestMultinetBroadcast(t *testing.T) {
	fresh(t)
	apply(t, definition("flat", `"topology":"layer2","subnets":"10.150.0.0/24"`))
	manifest := attachedPod("from", "ovn-worker", "flat")
	for i := range 2 {
		manifest += attachedPod(fmt.Sprintf("near%d", i), "ovn-worker2", "flat")
	}
	for i := range 3 {
		manifest += attachedPod(fmt.Sprintf("far%d", i), "ovn-control-plane", "flat")
	}
	apply(t, manifest)
	pods := attachedPods(t)
	from := pods["from"].of("flat")[0]
	place := pods["from"].with(from)
	for name, p := range pods {
		if to, ok := p.on("flat"); ok && name != "from" {
			if err := inTime(20*time.Second, func() error { return answered(place, to) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := map[string]int{"ovn-worker2": 2, "ovn-control-plane": 3}
	if layout(t).Zone == "global" {
		want = map[string]int{"ovn-worker2": 1, "ovn-control-plane": 1}
	}
	const times = 20 // within the burst of the meter
	heard := map[string]*packets.Sniffer{}
	for name, p := range pods {
		s, err := packets.Sniff(p.Place, p.of("flat")[0].Interface, marked)
		if err != nil {
			t.Fatal(err)
		}
		heard[name] = s
	}
	tunnels := tunnelled(t, "ovn-worker")
	broadcast := forgedFrom(from, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, netip.MustParseAddr("10.150.0.255"))
	if err := packets.Send(place, from.Interface, broadcast, times); err != nil {
		t.Fatal(err)
	}
	_ = inTime(5*time.Second, func() error {
		for name, s := range heard {
			if name != "from" && s.Count() < times {
				return errors.New("under way")
			}
		}
		return nil
	})
	for name, s := range heard {
		if got := len(s.Close()); name != "from" && got != times {
			t.Errorf("pod %s heard %d broadcasts of %d", name, got, times)
		}
	}
	copies := tunnels()
	t.Logf("%d broadcasts to 5 pods on two other nodes: tunnel packets by node: %v", times, copies)
	for host, n := range want {
		if copies[host] != n*times {
			t.Errorf("%d tunnel packets to %s for %d broadcasts, want %d each", copies[host], host, times, n)
		}
	}
	t.Run("meter", func(t *testing.T) { broadcastMeter(t, pods, from, broadcast) })
}

// tunnelled counts tunnel packets that carry a marked frame on the cable of a node, by
// the node that they go to, until what it returns is called.
func tunnelled(t *testing.T, host string) func() map[string]int {
	t.Helper()
	n, err := layout(t).Node(host)
	if err != nil {
		t.Fatal(err)
	}
	s, err := packets.Sniff(lanPlace(), fmt.Sprintf("n%d-0", n.Number), marked)
	if err != nil {
		t.Fatal(err)
	}
	return func() map[string]int {
		out := map[string]int{}
		for _, frame := range s.Close() {
			for _, m := range layout(t).Machines {
				if mac, err := net.ParseMAC(m.MAC); err == nil && bytes.Equal(frame[:6], mac) {
					out[m.Name]++
				}
			}
		}
		return out
	}
}

// broadcastMeter sends far more than the meter's rate for three seconds.
func broadcastMeter(t *testing.T, pods map[string]netPod, from netStatus, broadcast []byte) {
	const size = 1000 // bytes
	broadcast = append(broadcast, make([]byte, size-len(broadcast))...)
	s, err := packets.Sniff(pods["near0"].Place, pods["near0"].of("flat")[0].Interface, marked)
	if err != nil {
		t.Fatal(err)
	}
	begin, sent := time.Now(), 0
	for time.Since(begin) < 3*time.Second {
		if err := packets.Send(pods["from"].Place, from.Interface, broadcast, 100); err != nil {
			t.Fatal(err)
		}
		sent += 100
	}
	took := time.Since(begin)
	_ = inTime(time.Second, func() error { return errors.New("what is under way") })
	got := len(s.Close())
	rate := float64(got*size*8) / took.Seconds() / 1e6
	t.Logf("%d broadcasts of %d bytes sent in %v, %d heard: %.2f Mbit/s", sent, size, took.Round(time.Millisecond), got, rate)
	if offered := float64(sent*size*8) / took.Seconds() / 1e6; offered < 4 {
		t.Skipf("this machine sends %.1f Mbit/s only: too little to be metered", offered)
	}
	if rate > 2 || got == 0 { // 1 Mbit/s, and its burst in three seconds
		t.Errorf("%.2f Mbit/s of broadcasts arrived, the meter passes 1", rate)
	}
}

// Networks of TestMultinetMany, and how many of them pods use.
const (
	manyNetworks = 1000
	usedNetworks = 20
)

// TestMultinetMany makes a thousand networks and pods on twenty of them: the databases
// have rows of the twenty only. It prints how long the pods took from being created to
// being ready.
func TestMultinetMany(t *testing.T) {
	fresh(t)
	var all, pods strings.Builder
	for i := range manyNetworks {
		name := fmt.Sprintf("n%03d", i)
		all.WriteString(definition(name, fmt.Sprintf(`"topology":"layer2","subnets":"10.%d.%d.0/24"`, 128+i/250, i%250)))
		if i%(manyNetworks/usedNetworks) == 0 {
			pods.WriteString(attachedPod("on-"+name, "ovn-worker", name))
		}
	}
	begin := time.Now()
	apply(t, all.String())
	err := inTime(4*time.Minute, func() error {
		out := kubectl(t, "get", "networks", "-o", `jsonpath={range .items[?(@.status.conditions[0].status=="True")]}{.metadata.name}{"\n"}{end}`)
		if n := strings.Count(out, "suite-n"); n < manyNetworks {
			return fmt.Errorf("%d of %d networks are ready", n, manyNetworks)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d networks ready after %v", manyNetworks, time.Since(begin).Round(time.Second))
	took := createdToReady(t, pods.String(), usedNetworks)
	if len(took) == 0 {
		t.Fatal("no pod is ready")
	}
	t.Logf("%d pods on a network each, created at once on one node, to ready: p50 %v, p99 %v", len(took), took[len(took)/2], took[len(took)-1])
	for _, host := range zoneHosts(t) {
		got := strings.Count(switches(t, host), "suite.n")
		want := 0
		if host == "ovn-worker" || layout(t).Zone == "global" {
			want = usedNetworks
		}
		rows := strings.Count(lab(t, "nbctl", "--node", host, "--bare", "--columns=external_ids", "list", "Logical_Switch_Port"), "suite-n")
		t.Logf("%s: %d switches of networks, %d rows of their ports", host, got, rows)
		if got != want {
			t.Errorf("%s has %d switches of networks, want %d: of those that its pods use", host, got, want)
		}
	}
}

// createdToReady applies pods, and gives how long each took from then to ready, sorted.
func createdToReady(t *testing.T, manifest string, count int) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	watch := exec.CommandContext(ctx, "../../../bin/lab", "kubectl", "-n", namespace, "get", "pods", "--watch", "-o",
		`jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}`)
	out, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = watch.Wait() }()
	begin := time.Now()
	apply(t, manifest)
	seen := map[string]time.Duration{}
	for lines := bufio.NewScanner(out); len(seen) < count && lines.Scan(); {
		name, status, _ := strings.Cut(lines.Text(), " ")
		if _, again := seen[name]; status == "True" && !again {
			seen[name] = time.Since(begin)
		}
	}
	if len(seen) < count {
		t.Errorf("%d of %d pods are ready", len(seen), count)
	}
	var took []time.Duration
	for _, d := range seen {
		took = append(took, d.Round(time.Millisecond))
	}
	slices.Sort(took)
	return took
}
