package soup

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// namespace is where all pods are.
const namespace = "soup"

// api is the API server: objects that are never changed in place, and the log that
// watches read.
type api struct {
	nodes   map[string]*corev1.Node
	pods    map[string]*corev1.Pod     // by name
	record  assign.Record              // on the manager's Lease
	reports map[string]kube.Allocation // what NodeNetworks say that nodes run with; one outlives its Node
	log     []change
	version int
	uids    int
}

// change is one entry of the log: an object as it became, or its end.
type change struct {
	kind kube.Source
	name string
	node *corev1.Node
	pod  *corev1.Pod
	at   time.Time
}

func newAPI() *api {
	return &api{nodes: map[string]*corev1.Node{}, pods: map[string]*corev1.Pod{}, reports: map[string]kube.Allocation{}}
}

func (a *api) next() string {
	a.version++
	return strconv.Itoa(a.version)
}

func (a *api) uid(name string) types.UID {
	a.uids++
	return types.UID(fmt.Sprintf("%s-%d", name, a.uids))
}

func (a *api) putNode(n *corev1.Node) {
	n.ResourceVersion = a.next()
	a.nodes[n.Name] = n
	a.log = append(a.log, change{kind: kube.Nodes, name: n.Name, node: n, at: time.Now()})
}

func (a *api) createNode(name string) {
	a.putNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: a.uid(name), CreationTimestamp: metav1.Now(), Annotations: map[string]string{},
	}})
}

func (a *api) deleteNode(name string) {
	delete(a.nodes, name)
	a.next()
	a.log = append(a.log, change{kind: kube.Nodes, name: name, at: time.Now()})
}

func (a *api) putPod(p *corev1.Pod) {
	p.ResourceVersion = a.next()
	a.pods[p.Name] = p
	a.log = append(a.log, change{kind: kube.Pods, name: p.Name, pod: p, at: time.Now()})
}

func (a *api) createPod(name, node string) {
	a.putPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: a.uid(name), Annotations: map[string]string{}, Labels: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: node},
	})
}

func (a *api) deletePod(name string) {
	delete(a.pods, name)
	a.next()
	a.log = append(a.log, change{kind: kube.Pods, name: name, at: time.Now()})
}

// annotateNode writes annotations if the node is still the version that was seen;
// "" is any.
func (a *api) annotateNode(name, seen string, values map[string]string) {
	n := a.nodes[name]
	if n == nil || seen != "" && n.ResourceVersion != seen || !differs(n.Annotations, values) {
		return
	}
	n = n.DeepCopy()
	maps.Copy(n.Annotations, values)
	a.putNode(n)
}

// report writes what a node runs with into its NodeNetwork.
func (a *api) report(name string, runs kube.Allocation) {
	if runs.UID != "" && !reflect.DeepEqual(a.reports[name], runs) {
		a.reports[name] = runs
		a.next()
	}
}

// annotatePod writes annotations of a pod of that UID.
func (a *api) annotatePod(t kube.Target, values map[string]string) {
	p := a.pods[t.Name]
	if p == nil || string(p.UID) != t.UID || !differs(p.Annotations, values) {
		return
	}
	p = p.DeepCopy()
	maps.Copy(p.Annotations, values)
	a.putPod(p)
}

func differs(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return true
		}
	}
	return false
}

// watch is one observer's place in the log, for one kind.
type watch struct {
	api   *api
	kind  kube.Source
	next  int
	began bool
	known map[string]bool
	put   func(change)
	drop  func(name string)
	want  func(change) bool // nil: everything
}

// list is what a watch begins with, and what closes a gap: the present state, and
// the end of what is known and no more.
func (w *watch) list() {
	w.began, w.next = true, len(w.api.log)
	now := map[string]change{}
	if w.kind == kube.Nodes {
		for name, n := range w.api.nodes {
			now[name] = change{kind: w.kind, name: name, node: n}
		}
	} else {
		for name, p := range w.api.pods {
			now[name] = change{kind: w.kind, name: name, pod: p}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.known)) {
		if _, ok := now[name]; !ok || !w.wants(now[name]) {
			delete(w.known, name)
			w.drop(name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if w.wants(now[name]) {
			w.known[name] = true
			w.put(now[name])
		}
	}
}

func (w *watch) wants(c change) bool { return w.want == nil || w.want(c) }

// behind is how many entries of its kind the watch has not seen.
func (w *watch) behind() (n int) {
	for _, c := range w.api.log[w.next:] {
		if c.kind == w.kind {
			n++
		}
	}
	return n
}

// deliver hands on the next entry of the watch's kind; false when there is none.
func (w *watch) deliver() bool {
	for ; w.next < len(w.api.log); w.next++ {
		c := w.api.log[w.next]
		if c.kind != w.kind {
			continue
		}
		w.next++
		switch {
		case c.node == nil && c.pod == nil:
			if w.known[c.name] {
				delete(w.known, c.name)
				w.drop(c.name)
			}
		case w.wants(c):
			w.known[c.name] = true
			w.put(c)
		}
		return true
	}
	return false
}

// again hands on an object that is known already once more.
func (w *watch) again() {
	for i := w.next - 1; i >= 0; i-- {
		if c := w.api.log[i]; c.kind == w.kind && w.known[c.name] && (c.node != nil || c.pod != nil) {
			w.put(c)
			return
		}
	}
}
