package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
)

// manyNetworks is how many networks part thousand makes known beside those of part
// networks; every tenth of them is used.
const manyNetworks = 1000

// timeThousand is part thousand: a zone that knows a thousand networks. The first pod of
// a network that nobody uses brings all of its rows, and is timed from its binding to
// the answer of its ADD. Every other network is layer2.
func timeThousand(ctx context.Context, o options, n *node, w io.Writer) error {
	before, err := n.rowsOfNetworks()
	if err != nil {
		return err
	}
	all := make([]int, manyNetworks)
	for i := range all {
		all[i] = mostNetworks + i
	}
	began := time.Now()
	n.offer([]intent.Topology{intent.Layer3, intent.Layer2}, all...)
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := n.driver.Wait(wait, "network/"+definitionName(all[len(all)-1]), ovsdb.Committed); err != nil {
		return err
	}
	known := time.Since(began)
	unused, err := n.rowsOfNetworks()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d networks came at once: taken in after %s ms, rows in NB %+d\n", manyNetworks, ms(known), unused-before)
	o.meter = newMeter(n.zone)
	var times [2][]time.Duration // first pods, second pods
	for i := 0; i < len(all); i += max(1, manyNetworks/o.firsts) {
		for nth := range times {
			took, err := n.firstPod(ctx, o, all[i], nth, quarterOf(i, nth))
			if err != nil {
				return fmt.Errorf("pod %d of network %d: %w", nth+1, all[i], err)
			}
			times[nth] = append(times[nth], took)
		}
	}
	used, err := n.rowsOfNetworks()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "then %d of them were used, one after the other: rows in NB %+d\n\nbound until attached, ms    p50     p90     p99     max\n", len(times[0]), used-unused)
	quarter := max(1, len(times[0])/4)
	for _, line := range []struct {
		name string
		d    []time.Duration
	}{{"first pod of a network", times[0]}, {"  of the first quarter", times[0][:quarter]}, {"  of the last quarter", times[0][len(times[0])-quarter:]},
		{"second pod of it", times[1]}} {
		d := sorted(line.d)
		fmt.Fprintf(w, "  %-22s %6s  %6s  %6s  %6s\n", line.name, ms(quantile(d, 50)), ms(quantile(d, 90)), ms(quantile(d, 99)), ms(d[len(d)-1]))
	}
	last := len(all) - 1
	o.meter.print(w, "CPU time until attached, mean in ms", []string{quarterOf(0, 0), quarterOf(last, 0), quarterOf(0, 1), quarterOf(last, 1)})
	return nil
}

// quarterOf says which pod of a network it is, and of which quarter of the networks.
func quarterOf(i, nth int) string {
	return fmt.Sprintf("%s pod, quarter %d", [...]string{"first", "second"}[nth], 1+i*4/manyNetworks)
}

// firstPod is the nth pod of a network, on its node for the first time. It stays.
func (n *node) firstPod(ctx context.Context, o options, network, nth int, what string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	id := fmt.Sprintf("%d-%d", thousandBase+nth, network)
	s := sandbox{id: "ptb-" + id, pod: "pod-" + id, netns: filepath.Join(netnsDir, "ptb-"+id)}
	if err := exec.CommandContext(ctx, "ip", "netns", "add", filepath.Base(s.netns)).Run(); err != nil {
		return 0, err
	}
	if err := pause(ctx, o.lead/2); err != nil {
		return 0, err
	}
	p := &portolan{node: n, shim: o.shim, on: definitionName(network)}
	o.meter.start()
	began := time.Now()
	if err := p.add(ctx, s); err != nil {
		return 0, err
	}
	took := time.Since(began)
	o.meter.stop(what)
	return took, errors.Join(p.del(ctx, s), p.clear(ctx, s))
}

// thousandBase begins the numbers of part thousand's sandboxes.
const thousandBase = 60

// rowsOfNetworks counts the rows of the tables that networks have in NB.
func (n *node) rowsOfNetworks() (int, error) {
	count := 0
	for _, table := range []string{"Logical_Switch", "Logical_Router", "Logical_Switch_Port", "Logical_Router_Port", "ACL", "QoS", "Logical_Router_Static_Route"} {
		out, err := n.zone.output("ovn-nbctl", "--db="+n.zone.socket("nb"), "--no-headings", "--columns=_uuid", "--format=csv", "list", table)
		if err != nil {
			return 0, err
		}
		count += len(strings.Fields(out))
	}
	return count, nil
}
