package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// netnsDir is where runtimes keep namespaces; a tmpfs of our own.
const netnsDir = "/run/netns"

// sandbox is what a runtime makes for a pod before it calls ADD.
type sandbox struct {
	id    string // of the container
	pod   string // the pod's name
	netns string // path
}

// contender is one way to attach a pod.
type contender interface {
	name() string
	bind(ctx context.Context, s sandbox) error  // a while before the ADD; not timed
	add(ctx context.Context, s sandbox) error   // timed
	del(ctx context.Context, s sandbox) error   // timed
	clear(ctx context.Context, s sandbox) error // after the DEL; not timed
}

// contenders are those of parts add and burst: ptp and the floor come last.
func contenders(ctx context.Context, o options, n *node) ([]contender, error) {
	if err := n.openFloor(ctx); err != nil {
		return nil, err
	}
	return []contender{
		&portolan{node: n, shim: o.shim, prepared: true}, &portolan{node: n, shim: o.shim},
		newPTP(os.Getenv(envPlugins), n.zone.dir), n.floor,
	}, nil
}

// openFloor makes the floor, whose switch is made once.
func (n *node) openFloor(ctx context.Context) (err error) {
	if n.floor == nil {
		n.floor, err = newFloor(ctx, n.zone)
	}
	return err
}

// timeADD is part add.
func timeADD(ctx context.Context, o options, n *node, w io.Writer) error {
	all, err := contenders(ctx, o, n)
	if err != nil {
		return err
	}
	times, err := race(ctx, o, all, 0)
	if err != nil {
		return err
	}
	report(w, o, all, times)
	n.stages.print(w)
	return nil
}

// timing holds one contender's samples.
type timing struct{ add, del []time.Duration }

// warmups are run before what counts: caches, a first port's logical flows.
const warmups = 5

// race lets the contenders take turns. Each round begins with another of them,
// so that none always follows the same one. Their sandboxes are numbered from base.
func race(ctx context.Context, o options, all []contender, base int) ([]timing, error) {
	times := make([]timing, len(all))
	for round := range o.samples + warmups {
		for i := range all {
			k := (i + round) % len(all)
			add, del, err := sample(ctx, o, all[k], fmt.Sprintf("%d-%d", base+k, round))
			if err != nil {
				return nil, fmt.Errorf("%s, sample %d: %w", all[k].name(), round, err)
			}
			if round >= warmups {
				times[k].add, times[k].del = append(times[k].add, add), append(times[k].del, del)
			}
		}
	}
	return times, nil
}

// sample is one pod's life. Its namespace stays until the program ends: taking
// one down goes on in the kernel for a while, under locks that the next would meet.
func sample(ctx context.Context, o options, c contender, id string) (add, del time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := sandbox{id: "ptb-" + id, pod: "pod-" + id, netns: filepath.Join(netnsDir, "ptb-"+id)}
	if err := exec.CommandContext(ctx, "ip", "netns", "add", filepath.Base(s.netns)).Run(); err != nil {
		return 0, 0, err
	}
	if err := c.bind(ctx, s); err != nil {
		return 0, 0, fmt.Errorf("binding: %w", err)
	}
	if err := pause(ctx, o.lead); err != nil {
		return 0, 0, err
	}
	o.meter.start()
	began := time.Now()
	if err := c.add(ctx, s); err != nil {
		return 0, 0, fmt.Errorf("ADD: %w", err)
	}
	add = time.Since(began)
	o.meter.stop(labelOf(c))
	if err := pause(ctx, o.lead/2); err != nil {
		return 0, 0, err
	}
	began = time.Now()
	if err := c.del(ctx, s); err != nil {
		return 0, 0, fmt.Errorf("DEL: %w", err)
	}
	return add, time.Since(began), c.clear(ctx, s)
}

// pause lets time pass as it does between the kubelet's steps.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sorted(d []time.Duration) []time.Duration { return slices.Sorted(slices.Values(d)) }

// quantile is the nearest-rank percentile of sorted durations.
func quantile(d []time.Duration, percent int) time.Duration {
	return d[max(0, (len(d)*percent+99)/100-1)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

// report prints the figures, and each as a multiple of ptp's and of the floor's:
// the last two contenders.
func report(w io.Writer, o options, all []contender, times []timing) {
	fmt.Fprintf(w, "%d samples each, in turns; pods bound %s before\n", o.samples, o.lead)
	for _, what := range []struct {
		name string
		of   func(timing) []time.Duration
	}{{"ADD", func(t timing) []time.Duration { return t.add }}, {"DEL", func(t timing) []time.Duration { return t.del }}} {
		fmt.Fprintf(w, "\n%s, ms%s p50     p90     p99     max   p50/ptp p99/ptp  p50/floor p99/floor\n", what.name, fmt.Sprintf("%19s", ""))
		ptp, floor := sorted(what.of(times[len(all)-2])), sorted(what.of(times[len(all)-1]))
		for i, c := range all {
			d := sorted(what.of(times[i]))
			ratio := func(to []time.Duration, percent int) float64 {
				return float64(quantile(d, percent)) / float64(quantile(to, percent))
			}
			fmt.Fprintf(w, "  %-22s %6s  %6s  %6s  %6s   %6.2f  %6.2f     %6.2f    %6.2f\n", c.name(), ms(quantile(d, 50)), ms(quantile(d, 90)), ms(quantile(d, 99)),
				ms(d[len(d)-1]), ratio(ptp, 50), ratio(ptp, 99), ratio(floor, 50), ratio(floor, 99))
		}
	}
}
