package devices_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// TestSoup edits and removes pools, starts and ends pods, and kills the agent, in any
// order: what a pod has it keeps, whole, and in the end everything is as the pools say.
func TestSoup(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { soup(t, rand.New(rand.NewPCG(seed, 46))) })
	}
}

// held is a pod with its device.
type held struct {
	device string
	owner  sriov.Owner
}

func soup(t *testing.T, random *rand.Rand) {
	w := newWorld(t, shape("connectx-6", 2, sriov.Legacy))
	w.kubelet.Start()
	pools := map[string]*intent.DevicePool{}
	start := func() { w.start(slices.Collect(maps.Values(pools))...) }
	start()
	pods := map[string]held{}
	whole := func(after string) {
		t.Helper()
		for name, h := range pods {
			if err := w.keeper.Check(t.Context(), h.device, h.owner); err != nil {
				t.Fatalf("after %s pod %s has lost %s: %v", after, name, h.device, err)
			}
		}
	}
	edit := func(p *intent.DevicePool) string {
		pools[p.Name] = p
		w.d.Know(p)
		return fmt.Sprintf("pool %+v", *p)
	}
	next := 0
	for range 40 {
		what := ""
		switch random.IntN(7) {
		case 0:
			what = edit(soft("s", random.IntN(5)))
		case 1:
			vfs, mode := random.IntN(5), []string{"legacy", "switchdev"}[random.IntN(2)]
			what = edit(nics("n", func(p *intent.DevicePool) { p.VFs, p.Mode = vfs, mode }))
		case 2:
			name := []string{"s", "n"}[random.IntN(2)]
			delete(pools, name)
			w.d.Forget(name)
			what = "no pool " + name
		case 3:
			w.end()
			start()
			what = "a kill"
		case 4, 5:
			next++
			name := fmt.Sprintf("p%d", next)
			pod, err := w.kubelet.Admit("ns", name, fast, 1)
			if err != nil {
				continue // none is well now
			}
			id := pod.Devices[fast][0]
			pods[name] = held{id, w.attach(id, name, "ns/fast")}
			what = "pod " + name + " on " + id
		case 6:
			for name, h := range pods {
				w.release(h.device, h.owner)
				w.kubelet.Remove("ns", name)
				delete(pods, name)
				what = "the end of pod " + name
				break
			}
		}
		w.pass(time.Duration(random.IntN(40)) * time.Second)
		whole(what)
	}
	for name, h := range pods {
		w.release(h.device, h.owner)
		w.kubelet.Remove("ns", name)
		delete(pods, name)
	}
	edit(soft("s", 2))
	edit(nics("n", switchdev(3)))
	w.pass(10 * time.Minute)
	w.kubelet.Wait(fast, well(5, 5))
	for _, name := range []string{"s", "n"} {
		w.pool(name, func(s v1alpha1.NodeDevicePool) bool { return s.Ready && s.InUse == 0 })
	}
}
