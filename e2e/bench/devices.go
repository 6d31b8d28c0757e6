package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// devicesBase begins the numbers of part devices' sandboxes.
const devicesBase = 60

// timeDevices is part devices: ADD and DEL of a pod whose further interface is a soft
// device, beside one whose further interface is a veth pair, and beside the changes of
// the kernel by themselves.
func timeDevices(ctx context.Context, o options, n *node, w io.Writer) (err error) {
	if err := loopback(); err != nil {
		return err
	}
	var pairs []softPair
	for _, label := range []string{"agent", "alone", "bare"} {
		p, err := n.devices.pair(label)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.devices.kernel.RemoveSoft(p.representor)) }()
		pairs = append(pairs, p)
	}
	n.devices.one = pairs[0].id
	defer func() { n.devices.one = "" }()
	alone, err := newKeeper(n, pairs[1])
	if err != nil {
		return err
	}
	bare, err := newMoves(pairs[2])
	if err != nil {
		return err
	}
	n.define("paired", pairedNetwork, intent.Layer3, "")
	n.define("device", deviceNetwork, intent.Layer3, "example.com/soft")
	all := []contender{
		&portolan{node: n, shim: o.shim, prepared: true, more: 1, on: "device", device: true},
		alone,
		&portolan{node: n, shim: o.shim, prepared: true, more: 1, on: "paired"},
		bare,
	}
	n.stages.reset()
	o.samples = max(1, o.samples/devicesShare)
	times, err := race(ctx, o, all, devicesBase)
	if err != nil {
		return err
	}
	reportDevices(w, o, all, times)
	n.stages.print(w)
	return nil
}

// devicesShare is how many times fewer samples part devices takes.
const devicesShare = 2

// The numbers of part devices' networks: no other part's.
const (
	pairedNetwork = 2000
	deviceNetwork = 2001
)

// reportDevices prints the times, each as a multiple of the veth pair's and of the bare
// changes': the last two.
func reportDevices(w io.Writer, o options, all []contender, times []timing) {
	fmt.Fprintf(w, "%d samples each, in turns; pods bound %s before\n", o.samples, o.lead)
	for _, what := range []struct {
		name string
		of   func(timing) []time.Duration
	}{{"ADD", func(t timing) []time.Duration { return t.add }}, {"DEL", func(t timing) []time.Duration { return t.del }}} {
		fmt.Fprintf(w, "\n%s, ms                                p50     p90     p99     max   p50/pair p99/pair  p50/bare p99/bare\n", what.name)
		pair, bare := sorted(what.of(times[len(all)-2])), sorted(what.of(times[len(all)-1]))
		for i, c := range all {
			d := sorted(what.of(times[i]))
			ratio := func(to []time.Duration, percent int) float64 {
				return float64(quantile(d, percent)) / float64(quantile(to, percent))
			}
			fmt.Fprintf(w, "  %-34s %6s  %6s  %6s  %6s     %6.2f   %6.2f    %6.2f   %6.2f\n", deviceLabel(c), ms(quantile(d, 50)), ms(quantile(d, 90)), ms(quantile(d, 99)),
				ms(d[len(d)-1]), ratio(pair, 50), ratio(pair, 99), ratio(bare, 50), ratio(bare, 99))
		}
	}
}

// deviceLabel names what a pod's further interface is.
func deviceLabel(c contender) string {
	p, ok := c.(*portolan)
	switch {
	case ok && p.device:
		return "portolan, eth0 and a soft device"
	case ok:
		return "portolan, eth0 and a veth pair"
	}
	return c.name()
}
