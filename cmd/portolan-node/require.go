package main

import (
	"fmt"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// When an interface whose definition requires hardware counts as out of it: in two
// readings in a row less than half of its packets moved there. The first packets of
// each flow never do, so one that moves few says nothing.
const (
	outReadings = 2
	fewPackets  = 100
)

// requiring watches the interfaces of definitions with "offload": "require", of one
// goroutine.
type requiring struct {
	offload func(attachment string) string               // of its definition; "": not known
	tell    func(of intent.Key, problems []rows.Problem) // health.problems
	show    func(out int)

	counts map[intent.Key]int // readings in a row that found it out
	told   map[intent.Key]string
}

func newRequiring(a *agent) *requiring {
	return &requiring{
		offload: a.networks.Offload, tell: a.health.problems, show: a.health.offload.RequiredOut,
		counts: map[intent.Key]int{}, told: map[intent.Key]string{},
	}
}

// kindRequired files that an interface is out of hardware, each by itself.
const kindRequired intent.Kind = "Required"

// look judges the interfaces of a report. One that moves too little to tell stays what it
// was; what is told of one is taken back when it is back, or gone.
func (q *requiring) look(r *offload.Report) {
	there := map[intent.Key]bool{}
	for i := range r.Interfaces {
		at := &r.Interfaces[i]
		if at.Pod == "" || q.offload(at.Network) != multus.OffloadRequire {
			continue
		}
		of := intent.Key{Kind: kindRequired, Name: at.Pod + "/" + at.Network}
		there[of] = true
		out, known := outOfHardware(r, at)
		switch {
		case !known:
		case !out:
			q.back(of)
		default:
			if q.counts[of]++; q.counts[of] >= outReadings {
				q.say(of, r, at)
			}
		}
	}
	for of := range q.counts {
		if !there[of] {
			q.back(of)
		}
	}
	q.show(len(q.told))
}

func (q *requiring) back(of intent.Key) {
	delete(q.counts, of)
	if _, told := q.told[of]; told {
		delete(q.told, of)
		q.tell(of, nil)
	}
}

// say tells of an interface without figures, which would be other ones each time; the
// reason stays the first that there was.
func (q *requiring) say(of intent.Key, r *offload.Report, at *offload.InterfaceReport) {
	if _, told := q.told[of]; told {
		return
	}
	text := fmt.Sprintf("interface %s by definition %s, which requires offload, has fallen out of the NIC", at.Interface, intent.DefinitionOf(at.Network))
	if e := whyOut(r, at); e.Code != "" {
		text += fmt.Sprintf(": %s: %s %s", e.Code, e.Meaning, e.Cure)
	}
	text += "; portolan offload " + at.Pod + " shows its flows"
	q.told[of] = text
	q.tell(of, []rows.Problem{{
		Object: intent.Key{Kind: intent.KindPod, Name: at.Pod}.String(), Field: "metadata.annotations[k8s.v1.cni.cncf.io/networks]",
		Severity: rows.Warning, Message: text,
	}})
}

// outOfHardware judges one interface; false where nothing can be said.
func outOfHardware(r *offload.Report, at *offload.InterfaceReport) (out, known bool) {
	if len(r.Reasons) > 0 {
		return true, true // no flow of the node is
	}
	if r.Window == nil || r.Reading.Skipped != "" {
		return false, false
	}
	in := at.From.Hardware.Packets + at.To.Hardware.Packets
	all := at.From.Sum().Packets + at.To.Sum().Packets
	return 2*in < all, all >= fewPackets
}

// whyOut is the reason that most packets have, of the node first.
func whyOut(r *offload.Report, at *offload.InterfaceReport) offload.Explanation {
	if len(r.Reasons) > 0 {
		return offload.Explain(r.Reasons[0].Code)
	}
	for _, c := range at.Reasons {
		return offload.Explain(c.Code)
	}
	return offload.Explanation{}
}
