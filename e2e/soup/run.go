package soup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// beginning is what every run begins with.
func beginning() []step {
	return parse("machine m1\nmachine m2\nmachine m3\nsettle")
}

// run plays steps in a new world, then the end: everything settles, all pods are
// deleted, and nothing is left of them.
func run(o options, steps []step) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	w := newWorld(o)
	for _, s := range slices.Concat(beginning(), steps, parse("settle")) {
		if err := w.do(s); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.api.pods)) {
		w.api.deletePod(name)
	}
	if err := w.settled(); err != nil {
		return fmt.Errorf("with all pods deleted: %w", err)
	}
	return w.empty()
}

// empty reports what is left of pods that are all gone.
func (w *world) empty() error {
	var errs []error
	for _, m := range w.list() {
		if w.api.nodes[m.node] == nil {
			continue // nobody serves there
		}
		ports, _ := m.ports.List(context.Background())
		links, _ := m.links.List()
		if len(ports)+len(links) > 0 {
			errs = append(errs, fmt.Errorf("all pods are gone, and %s has ports %v and links %v", m.name, ports, links))
		}
		if a := m.agent; a.pool != nil && a.pool.Usage()[0].Used > 0 {
			errs = append(errs, fmt.Errorf("all pods are gone, and %s's addresses are held by %v", m.name, a.pool.Owners()))
		}
	}
	return errors.Join(errs...)
}

func contextOf() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Second)
}

// random makes n steps of a seed.
func random(seed uint64, n int) []step {
	r := rand.New(rand.NewPCG(seed, 0))
	total := 0
	table := mix()
	for _, c := range table {
		total += c.weight
	}
	var out []step
	for len(out) < n {
		at := r.IntN(total)
		for _, c := range table {
			if at -= c.weight; at < 0 {
				out = append(out, c.make(r))
				break
			}
		}
	}
	return out
}

// choice is one kind of step, and how often it comes.
type choice struct {
	weight int
	make   func(r *rand.Rand) step
}

func pod(r *rand.Rand) string      { return "p" + strconv.Itoa(r.IntN(6)) }
func aMachine(r *rand.Rand) string { return "m" + strconv.Itoa(1+r.IntN(4)) }
func kind(r *rand.Rand) string     { return []string{"nodes", "pods", "pods"}[r.IntN(3)] }
func zoneDB(r *rand.Rand) string   { return []string{"NB", "NB", "SB"}[r.IntN(3)] }

// node is a name that a machine has or may get.
func node(r *rand.Rand) string {
	if r.IntN(5) == 0 {
		return []string{"a9", "z9"}[r.IntN(2)] // before and after every machine's own
	}
	return aMachine(r)
}

// mix is what happens in a cluster, and how often. Deliveries and work come often
// enough that most things end, and seldom enough that much is half done.
func mix() []choice {
	on := func(verb string, args ...func(*rand.Rand) string) func(*rand.Rand) step {
		return func(r *rand.Rand) step {
			s := step{verb}
			for _, a := range args {
				s = append(s, a(r))
			}
			return s
		}
	}
	upTo := func(n int) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return strconv.Itoa(1 + r.IntN(n)) }
	}
	word := func(words ...string) func(*rand.Rand) string {
		return func(r *rand.Rand) string { return words[r.IntN(len(words))] }
	}
	return []choice{
		{14, on("pod", pod, node)}, {8, on("delete", pod)}, {3, on("recreate", pod)}, {2, on("complete", pod)}, {2, on("label", pod, word("a", "b"))},
		{22, on("deliver", aMachine, kind, upTo(4))}, {2, on("list", aMachine, kind)}, {2, on("again", aMachine, kind)},
		{8, on("turn", aMachine)}, {14, on("work", aMachine)}, {3, on("half", aMachine)}, {2, on("lose", aMachine, word("applied", "dropped"))},
		{6, on("flush", aMachine)}, {8, on("kubelet", aMachine)}, {6, on("add", pod)}, {4, on("del", pod)},
		{3, on("kill", aMachine)}, {6, on("start", aMachine)}, {1, on("reboot", aMachine)},
		{1, on("down", aMachine, word("NB", "SB", "OVS"))}, {3, on("up", aMachine, word("NB", "SB", "OVS"))},
		{1, on("wipe", aMachine, zoneDB)}, {1, on("save", aMachine, zoneDB)}, {1, on("restore", aMachine, zoneDB)},
		{1, on("machine", aMachine)}, {1, on("node-delete", node)}, {2, on("node-create", node)}, {1, on("rename", aMachine, node)},
		{1, on("address", aMachine, upTo(9))}, {2, on("edit", node, word("garbage", "none", "free", "m1", "m2", "m3"))},
		{6, on("manager", upTo(4), upTo(2))}, {1, on("manager-kill")}, {1, on("manager-dies")}, {3, on("manager-start")},
		{4, on("central", upTo(5))}, {1, on("central-kill")},
		{3, on("pass", word("1", "5", "20", "70", "70"))}, {1, on("settle")},
	}
}

// shrink finds a short list that fails still: it takes away ever smaller pieces, as
// long as what is left fails, until no single step can be taken away.
func shrink(steps []step, fails func([]step) bool) []step {
	for size := max(1, len(steps)/2); ; size = max(1, size/2) {
		before := len(steps)
		for from := 0; from < len(steps); {
			rest := slices.Concat(steps[:from], steps[min(from+size, len(steps)):])
			if fails(rest) {
				steps = rest
			} else {
				from += size
			}
		}
		if size == 1 && len(steps) == before {
			return steps
		}
	}
}
