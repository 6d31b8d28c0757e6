package plugin

import (
	"cmp"
	"slices"
)

// prefer chooses n of the devices that are available, those that must be among them
// first: of one NUMA node, where one has enough, and there spread over PFs; a device
// that is asked for alone is of the PF that has most left.
func prefer(all map[string]Device, available, must []string, n int) []string {
	c := &chooser{all: all, near: map[int]bool{}, at: map[int]int{}, taken: map[string]int{}, free: map[string]int{}}
	for _, id := range available {
		if !slices.Contains(must, id) {
			c.left = append(c.left, id)
			c.at[all[id].NUMA]++
			c.free[all[id].PF]++
		}
	}
	for _, id := range must {
		c.take(id)
	}
	for len(c.out) < n && len(c.left) > 0 {
		best := slices.MinFunc(c.left, c.compare)
		c.left = slices.DeleteFunc(c.left, func(id string) bool { return id == best })
		c.free[all[best].PF]--
		c.take(best)
	}
	return c.out
}

type chooser struct {
	all         map[string]Device
	left, out   []string
	near        map[int]bool   // NUMA nodes of what is chosen
	at          map[int]int    // how many free ones a NUMA node had at first
	taken, free map[string]int // by PF
}

func (c *chooser) take(id string) {
	c.out = append(c.out, id)
	c.near[c.all[id].NUMA] = true
	c.taken[c.all[id].PF]++
}

// compare puts the better of two first.
func (c *chooser) compare(x, y string) int {
	a, b := c.all[x], c.all[y]
	near := func(d Device) int {
		if c.near[d.NUMA] {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(near(a), near(b)),
		cmp.Compare(c.at[b.NUMA], c.at[a.NUMA]),
		cmp.Compare(a.NUMA, b.NUMA),
		cmp.Compare(c.taken[a.PF], c.taken[b.PF]),
		cmp.Compare(c.free[b.PF], c.free[a.PF]),
		cmp.Compare(a.PF, b.PF),
		compareIDs(a.ID, b.ID),
	)
}

// compareIDs puts soft-a-2 before soft-a-10; PCI addresses are of one length.
func compareIDs(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }
