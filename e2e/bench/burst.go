package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// crowd is how many pods start at once in part burst.
const crowd = 10

// timeBurst is part burst: rounds of ten ADDs at once, the contenders in turn. It
// prints how long one of the ten takes, and all of them together.
func timeBurst(ctx context.Context, o options, n *node, w io.Writer) error {
	all, err := contenders(ctx, o, n)
	if err != nil {
		return err
	}
	rounds := max(3, o.samples/crowd)
	one, together := make([][]time.Duration, len(all)), make([][]time.Duration, len(all))
	for round := range rounds + 1 {
		for i := range all {
			k := (i + round) % len(all)
			each, whole, err := burst(ctx, o, all[k], fmt.Sprintf("%d-%d", k+10, round*crowd))
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", all[k].name(), round, err)
			}
			if round > 0 { // the first is for caches
				one[k], together[k] = append(one[k], each...), append(together[k], whole)
			}
		}
	}
	fmt.Fprintf(w, "%d rounds of %d each, in turns\n\nms                        one p50   p99   all p50   one/ptp p50   p99   all/ptp\n", rounds, crowd)
	ptp := len(all) - 2
	ratio := func(d [][]time.Duration, k, percent int) float64 {
		return float64(quantile(sorted(d[k]), percent)) / float64(quantile(sorted(d[ptp]), percent))
	}
	for k, c := range all {
		fmt.Fprintf(w, "  %-22s %8s %6s %9s %12.2f %6.2f %9.2f\n", c.name(), ms(quantile(sorted(one[k]), 50)), ms(quantile(sorted(one[k]), 99)),
			ms(quantile(sorted(together[k]), 50)), ratio(one, k, 50), ratio(one, k, 99), ratio(together, k, 50))
	}
	return nil
}

// burst is one round of one contender.
func burst(ctx context.Context, o options, c contender, id string) (each []time.Duration, whole time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var k, first int
	if _, err := fmt.Sscanf(id, "%d-%d", &k, &first); err != nil {
		return nil, 0, err
	}
	pods := make([]sandbox, crowd)
	for i := range pods {
		id := fmt.Sprintf("%d-%d", k, first+i)
		pods[i] = sandbox{id: "ptb-" + id, pod: "pod-" + id, netns: filepath.Join(netnsDir, "ptb-"+id)}
		if err := errors.Join(exec.CommandContext(ctx, "ip", "netns", "add", "ptb-"+id).Run(), c.bind(ctx, pods[i])); err != nil {
			return nil, 0, err
		}
	}
	if err := pause(ctx, o.lead); err != nil {
		return nil, 0, err
	}
	each = make([]time.Duration, crowd)
	errs := make([]error, crowd)
	began := time.Now()
	var running sync.WaitGroup
	for i := range pods {
		running.Go(func() {
			errs[i] = c.add(ctx, pods[i])
			each[i] = time.Since(began)
		})
	}
	running.Wait()
	whole = time.Since(began)
	for _, s := range pods {
		errs = append(errs, c.del(ctx, s), c.clear(ctx, s))
	}
	return each, whole, errors.Join(errs...)
}
