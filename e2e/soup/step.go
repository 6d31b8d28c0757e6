package soup

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// step is one thing that happens: a verb and its arguments.
type step []string

// String is its line in a script.
func (s step) String() string { return strings.Join(s, " ") }

// arg is the i-th argument, "" if there is none.
func (s step) arg(i int) string {
	if i+1 < len(s) {
		return s[i+1]
	}
	return ""
}

func (s step) number(i int) int {
	n, _ := strconv.Atoi(s.arg(i)) // a word is 0: nothing
	return n
}

// parse reads a script: a step a line, # begins a comment.
func parse(script string) (out []step) {
	for _, line := range strings.Split(script, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 {
			out = append(out, words)
		}
	}
	return out
}

func format(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// verb carries out a step; one that makes no sense here does nothing.
type verb func(w *world, s step) error

// verbs is the language.
func verbs() map[string]verb {
	all := map[string]verb{
		"pass":   (*world).pass,
		"settle": func(w *world, _ step) error { return w.settled() },
	}
	for _, some := range []map[string]verb{clusterVerbs(), managerVerbs(), agentVerbs(), databaseVerbs()} {
		maps.Copy(all, some)
	}
	return all
}

// clusterVerbs are what users and clouds do.
func clusterVerbs() map[string]verb {
	return map[string]verb{
		"machine": func(w *world, s step) error { w.addMachine(s.arg(0)); return nil },
		"pod": func(w *world, s step) error {
			if w.api.pods[s.arg(0)] == nil && w.api.nodes[s.arg(1)] != nil {
				w.api.createPod(s.arg(0), s.arg(1))
			}
			return nil
		},
		"delete": func(w *world, s step) error {
			if w.api.pods[s.arg(0)] != nil {
				w.api.deletePod(s.arg(0))
			}
			return nil
		},
		"recreate": func(w *world, s step) error {
			if p := w.api.pods[s.arg(0)]; p != nil {
				w.api.deletePod(p.Name)
				w.api.createPod(p.Name, p.Spec.NodeName)
			}
			return nil
		},
		"complete": func(w *world, s step) error {
			if p := w.api.pods[s.arg(0)]; p != nil {
				p = p.DeepCopy()
				p.Status.Phase = corev1.PodSucceeded
				w.api.putPod(p)
			}
			return nil
		},
		"label": func(w *world, s step) error {
			if p := w.api.pods[s.arg(0)]; p != nil {
				p = p.DeepCopy()
				p.Labels["app"] = s.arg(1)
				w.api.putPod(p)
			}
			return nil
		},
		"node-delete": func(w *world, s step) error {
			if w.api.nodes[s.arg(0)] != nil {
				w.api.deleteNode(s.arg(0))
			}
			return nil
		},
		"node-create": func(w *world, s step) error {
			if m := w.byNode(s.arg(0)); m != nil && w.api.nodes[m.node] == nil {
				w.api.createNode(m.node)
			}
			return nil
		},
		"edit": (*world).edit,
		"rename": func(w *world, s step) error {
			m, name := w.machines[s.arg(0)], s.arg(1)
			if m != nil && w.byNode(name) == nil && w.api.nodes[name] == nil {
				m.kill()
				m.node = name
				w.api.createNode(name)
			}
			return nil
		},
		"address": func(w *world, s step) error {
			m := w.machines[s.arg(0)]
			a := machineAddr(s.number(1))
			if m != nil && !slices.ContainsFunc(w.list(), func(o *machine) bool { return o.addr == a }) {
				m.kill() // the agent learns its address when it starts
				m.addr = a
			}
			return nil
		},
	}
}

// edit vandalises a node's annotation of its subnets: with garbage, none, one that is
// nobody's, or another node's. What a node has that has not said so yet is not known
// to anybody but by that annotation: docs/limits.md.
func (w *world) edit(s step) error {
	n := w.api.nodes[s.arg(0)]
	if n == nil || w.api.reports[n.Name].UID != string(n.UID) {
		return nil
	}
	text := s.arg(1)
	switch other := w.api.nodes[text]; {
	case text == "none":
		text = ""
	case text == "free":
		text = `{"default":["10.244.200.0/28"]}`
	case other != nil:
		text = other.Annotations[kube.AnnotationNodeSubnets]
	}
	w.api.annotateNode(n.Name, "", map[string]string{kube.AnnotationNodeSubnets: text})
	return nil
}

func managerVerbs() map[string]verb {
	return map[string]verb{
		"manager-kill": func(w *world, _ step) error { w.manager = nil; return nil },
		"manager-dies": func(w *world, _ step) error { w.dying = true; return nil },
		"manager-start": func(w *world, _ step) (err error) {
			if w.manager == nil {
				w.manager, err = lead(w)
			}
			return err
		},
		"manager": func(w *world, s step) error { // hears of n changes, reconciles m nodes
			if w.manager != nil {
				for range s.number(0) {
					w.manager.nodes.deliver()
				}
				w.manager.work(s.number(1))
			}
			return nil
		},
		"central": func(w *world, s step) error {
			if w.central != nil {
				return w.central.deliver(s.number(0))
			}
			return nil
		},
		"central-kill": func(w *world, _ step) error {
			if w.central != nil {
				w.central.start()
			}
			return nil
		},
	}
}

// onAgent makes a verb of what is done to a living agent.
func onAgent(do func(a *agent, s step) error) verb {
	return func(w *world, s step) error {
		m := w.machines[s.arg(0)]
		if m == nil || m.agent == nil {
			return nil
		}
		return m.alive(do(m.agent, s))
	}
}

func onMachine(do func(m *machine, s step) error) verb {
	return func(w *world, s step) error {
		m := w.machines[s.arg(0)]
		if m == nil {
			return nil
		}
		return m.alive(do(m, s))
	}
}

func agentVerbs() map[string]verb {
	return map[string]verb{
		"start":   onMachine(func(m *machine, _ step) error { m.start(); return nil }),
		"kill":    onMachine(func(m *machine, _ step) error { m.kill(); return nil }),
		"reboot":  onMachine(func(m *machine, _ step) error { m.reboot(); return nil }),
		"deliver": onAgent(func(a *agent, s step) error { return a.deliver(kube.Source(s.arg(1)), s.number(2)) }),
		"list": onAgent(func(a *agent, s step) error {
			if w := a.watchOf(kube.Source(s.arg(1))); w.began {
				w.list()
			}
			return nil
		}),
		"again": onAgent(func(a *agent, s step) error { a.watchOf(kube.Source(s.arg(1))).again(); return a.m.world.broken() }),
		"turn": onAgent(func(a *agent, _ step) error { // one job of the CNI server, nothing of the engine
			if a.server != nil {
				ctx, cancel := contextOf()
				defer cancel()
				a.server.Turn(ctx)
			}
			return a.m.world.broken()
		}),
		"work":  onAgent(func(a *agent, _ step) error { return a.work() }),
		"flush": onAgent(func(a *agent, _ step) error { a.flush(); return nil }),
		"half": onAgent(func(a *agent, _ step) error { // transactions are under way when the next step comes
			if a.ready && a.begun {
				return a.shell.Deliver()
			}
			return nil
		}),
		"lose": onAgent(func(a *agent, s step) error {
			if a.ready && a.begun {
				a.shell.Lose(s.arg(1) == "applied")
			}
			return nil
		}),
		"kubelet": onMachine(func(m *machine, _ step) error { return m.kubelet() }),
		"add": func(w *world, s step) error {
			if p := w.api.pods[s.arg(0)]; p != nil && !completed(p) {
				if m := w.byNode(p.Spec.NodeName); m != nil {
					return m.alive(m.add(p.Name))
				}
			}
			return nil
		},
		"del": func(w *world, s step) error {
			for _, m := range w.list() {
				for _, uid := range slices.Sorted(maps.Keys(m.sandbox)) {
					if m.sandbox[uid].pod == s.arg(0) {
						return m.alive(m.del(uid))
					}
				}
			}
			return nil
		},
	}
}

func databaseVerbs() map[string]verb {
	return map[string]verb{
		"down": onMachine(func(m *machine, s step) error { return m.setDown(rows.DB(s.arg(1)), true) }),
		"up":   onMachine(func(m *machine, s step) error { return m.setDown(rows.DB(s.arg(1)), false) }),
		"wipe": onMachine(func(m *machine, s step) error {
			return m.replace(rows.DB(s.arg(1)), enginetest.New(rows.DB(s.arg(1))))
		}),
		"save": onMachine(func(m *machine, s step) error {
			if db := m.dbs[rows.DB(s.arg(1))]; db != nil {
				db.saved = db.DB.Clone()
			}
			return nil
		}),
		"restore": onMachine(func(m *machine, s step) error {
			if db := m.dbs[rows.DB(s.arg(1))]; db != nil && db.saved != nil {
				return m.replace(rows.DB(s.arg(1)), db.saved.Clone())
			}
			return nil
		}),
	}
}

// pass lets time go by.
func (w *world) pass(s step) error {
	d := time.Duration(s.number(0)) * time.Second
	time.Sleep(d)
	for _, sh := range w.shells() {
		sh.Tick(d.Milliseconds())
	}
	return nil
}

// settled settles and checks.
func (w *world) settled() error {
	w.collect()
	if err := w.settle(); err != nil {
		return err
	}
	if w.strand() {
		if err := w.settle(); err != nil {
			return err
		}
	}
	return w.check()
}

// strand does what docs/limits.md asks of people: the pods of a node that came back
// with another subnet are deleted. It reports whether there were any.
func (w *world) strand() (some bool) {
	for _, name := range slices.Sorted(maps.Keys(w.api.pods)) {
		p, _ := kube.ParsePod(w.api.pods[name])
		if p == nil {
			continue
		}
		n, _ := kube.ParseNode(w.api.nodes[p.Node], zoning(w.opts.global))
		if at, ok := p.Attachment(intent.DefaultNetwork); ok && len(n.Subnets) > 0 && !n.Subnets[0].Contains(at.Addresses[0].Addr()) {
			w.api.deletePod(name)
			some = true
		}
	}
	return some
}

// collect does what clouds and Kubernetes do in time: the Node of a machine that
// has another name goes, then the pods whose node is gone.
func (w *world) collect() {
	for _, name := range slices.Sorted(maps.Keys(w.api.nodes)) {
		if w.byNode(name) == nil {
			w.api.deleteNode(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.api.pods)) {
		if w.api.nodes[w.api.pods[name].Spec.NodeName] == nil {
			w.api.deletePod(name)
		}
	}
}

// do carries out one step.
func (w *world) do(s step) error {
	v := verbs()[s[0]]
	if v == nil {
		return fmt.Errorf("no verb %q", s[0])
	}
	if err := v(w, s); err != nil {
		return fmt.Errorf("at %q: %w", s, err)
	}
	return w.broken()
}
