package portolan_test

import (
	"path/filepath"
	"slices"
	"strings"
)

// layer says what one directory, and what lies below it, may import.
type layer struct {
	dir    string
	except []string // directories below dir that have rules of their own
	ours   []string // directories of this module that it may import; what lies below them too
	// others are the third-party modules that it may import, by prefix; nil: any.
	others []string
	reason string
}

// layers is the import order of the tree. A directory that is not named may
// import anything that the rules after this table leave.
func layers() []layer {
	return []layer{
		{dir: "pkg/rows", ours: []string{}, others: []string{"github.com/google/uuid"},
			reason: "rows is a leaf: the output language must be readable, and testable, without anything that produces or consumes it"},
		{dir: "pkg/intent", except: []string{"pkg/intent/kube"}, ours: []string{}, others: []string{},
			reason: "intent is a leaf: its values are what the whole compiler agrees on, and Kubernetes types never pass the door (pkg/intent/kube)"},
		{dir: "pkg/engine", ours: []string{"pkg/rows", "pkg/intent"}, others: []string{},
			reason: "the engine knows no feature, no database and no client: the same events must give the same transactions anywhere"},
		{dir: "pkg/ovsdb", ours: []string{"pkg/rows", "pkg/engine", "pkg/intent", "pkg/ovsdb"},
			reason: "ovsdb carries out what the engine decided; it decides nothing, so it knows no feature"},
		{dir: "multus", ours: []string{"pkg/api"}, others: []string{"github.com/containernetworking/cni"},
			reason: "multus is a leaf that others may import from outside: it reads text and does no I/O"},
		{dir: "pkg/alloc", ours: []string{"pkg/rows"}, others: []string{},
			reason: "allocators are arithmetic on memory: who persists an allocation, and where, is their caller's business"},
		{dir: "pkg/intent/kube", ours: []string{"pkg/intent", "pkg/rows", "pkg/api", "pkg/alloc", "multus"},
			reason: "the door turns Kubernetes objects into intent; a door that knows what is behind it would be a controller; multus, a leaf, finds what a misspelt field was meant to be"},
		{dir: "pkg/presence", ours: []string{"pkg/intent"}, others: []string{},
			reason: "who uses which network is counted from what passes, before any sink, in every process alike"},
		{dir: "pkg/fold", ours: []string{"pkg/rows", "pkg/intent", "pkg/api"}, others: []string{},
			reason: "what is told of an object depends on what is wrong with it, and not on who tells it or how"},
		{dir: "pkg/record", ours: []string{"pkg/rows", "pkg/intent", "pkg/engine"}, others: []string{},
			reason: "a recording holds what the engine is given, and can be replayed by anybody who has the same kinds"},
		{dir: "pkg/inspect", ours: []string{"pkg/rows", "pkg/intent", "pkg/engine", "pkg/ovsdb", "pkg/alloc"}, others: []string{"github.com/google/uuid"},
			reason: "what a running compiler is asked does not depend on which program it runs in, nor on a feature"},
		{dir: "pkg/durable", ours: []string{}, others: []string{},
			reason: "how a file is replaced depends on the file system alone; what is in it, and what its loss means, its caller knows"},
		{dir: "pkg/host", ours: []string{"pkg/rows", "pkg/intent", "pkg/ovsdb/vswitch", "pkg/durable"},
			reason: "the node's kernel is made to be as declared; why it is declared so, its caller knows"},
		{dir: "pkg/cni", ours: []string{"pkg/rows", "pkg/alloc", "pkg/ovsdb/vswitch", "pkg/host/dump", "pkg/durable", "sriov", "multus"},
			reason: "a CNI call waits for no engine and no API server: what it needs to know is handed to it; sriov's keeper gives functions of NICs as its own netlink makes pairs, and multus has the words for both"},
		{dir: "cmd/portolan-manager/assign", ours: []string{"pkg/alloc", "pkg/intent/kube"}, others: []string{"k8s.io/api"},
			reason: "who gets which id is decided without I/O, so that any order of events can be played through"},
		{dir: "cmd/portolan-manager/claims", ours: []string{"pkg/api", "pkg/alloc", "pkg/intent", "pkg/rows", "multus"}, others: []string{"k8s.io/apimachinery"},
			reason: "which networks there are is decided without I/O, so that any world can be put before it"},
		{dir: "cmd/portolan-node/door", ours: []string{"pkg/cni", "pkg/intent", "multus"}, others: []string{},
			reason: "the door is played through by the random soup: it has no connection, file or process of its own"},
		{dir: "cmd/portolan-node/held", ours: []string{"pkg/intent", "pkg/rows"}, others: []string{},
			reason: "what a node runs with is played through by the random soup, too: time and the managers' Lease are handed to it"},
		{dir: "pkg/metrics", ours: []string{"pkg/engine", "pkg/ovsdb", "pkg/intent", "pkg/rows", "pkg/version"},
			reason: "figures are handed to metrics, or read by it from an engine; it knows no process"},
		{dir: "pkg/tools", ours: []string{}, others: []string{},
			reason: "a fixed list of commands, which nothing that is asked can become a part of"},
		{dir: "pkg/bundle", ours: []string{}, others: []string{},
			reason: "what takes secrets out knows no cluster, so that it can be tested with all forms of them"},
		{dir: "pkg/doctor", ours: []string{"pkg/host", "pkg/cni", "pkg/intent"},
			reason: "doctor asks the agent's own code what it would refuse, and no cluster"},
		{dir: "pkg/trace", except: []string{"pkg/trace/walk"}, ours: []string{}, others: []string{},
			reason: "what ovn-trace prints is read without a database, so that its text can be golden"},
		{dir: "pkg/trace/walk", ours: []string{"pkg/trace", "pkg/engine", "pkg/ovsdb", "pkg/intent", "pkg/rows"},
			reason: "the agent's end of a trace asks the engine and the southbound database, and no client"},
		{dir: "pkg/reach", ours: []string{"pkg/intent"},
			reason: "reach is the way to an agent, for any question: what is asked is its callers' business"},
		{dir: "multus", ours: []string{"pkg/api"}, reason: "multus is usable by itself"},
		{dir: "sriov", ours: []string{"pkg/api", "pkg/durable"}, others: []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/safchain/ethtool",
			"github.com/k8snetworkplumbingwg/sriovnet", "golang.org/x/sys", "k8s.io/kubelet", "google.golang.org/grpc"},
			reason: "sriov is a leaf that others may import from outside: it knows devices and the kernel, and neither pods' networks nor OVSDB"},
		{dir: "offload", ours: []string{"pkg/api"}, others: []string{"github.com/vishvananda/netlink", "github.com/safchain/ethtool", "golang.org/x/sys"},
			reason: "offload is usable by itself: it reads sockets, sysfs and netlink, and whose a port is its caller says"},
		{dir: "cmd/portolan-cni", ours: []string{"pkg/cni/wire", "pkg/version"}, others: []string{"github.com/containernetworking/cni"},
			reason: "portolan-cni is started for every CNI call of every pod: it stays tiny, forwards the call, and decides nothing"},
	}
}

// owner is a third-party module that few directories may import.
type owner struct {
	prefix string
	dirs   []string
	reason string
}

func owners() []owner {
	return []owner{
		{"k8s.io/client-go", []string{"pkg/intent/kube", "pkg/reach", "cmd/portolan-manager"},
			"one door: what the product reads or writes of the API goes through pkg/intent/kube; portolan-manager alone may use it for leader election, and pkg/reach, of the operator's tool, for the API server's exec (decision 36)"},
		{"k8s.io/api/", []string{"pkg/intent/kube", "pkg/reach", "pkg/api", "cmd/portolan-manager", "deploy"},
			"Kubernetes types never pass the door: behind it there are small values, parsed and validated once"},
		{"github.com/ovn-kubernetes/libovsdb", []string{"pkg/ovsdb", "pkg/cni", "pkg/host"},
			"OVSDB is spoken by pkg/ovsdb for the engine, and on a connection of their own by the two that see or keep a node's ports; everything else speaks rows"},
		{"google.golang.org/grpc", []string{"sriov"},
			"gRPC is spoken with the kubelet alone, by the packages that are its device plugin and ask which pod has which device"},
		{"github.com/vishvananda/netlink", []string{"pkg/host", "pkg/cni", "sriov", "offload"},
			"the kernel is changed by the packages whose tests run in a private namespace, and by nobody else"},
	}
}

func importRules() []rule {
	var out []rule
	for _, l := range layers() {
		out = append(out, rule{
			name: "imports/" + strings.ReplaceAll(l.dir, "/", "-"), reason: l.reason, check: l.check,
			badPath: l.dir + "/a.go", bad: `import _ "github.com/portolan-cni/portolan/pkg/script"`,
			goodPath: l.dir + "/a.go", good: `import _ "net/netip"`,
		})
	}
	for _, o := range owners() {
		out = append(out, rule{
			name: "imports/" + filepath.Base(o.prefix), reason: o.reason, check: o.check,
			badPath: "pkg/compile/pod/a.go", bad: `import _ "` + o.prefix + `/x"`,
			goodPath: o.dirs[0] + "/a.go",
		})
	}
	return append(out,
		rule{
			name: "imports/features", check: featureImports,
			reason:  "a feature is a pure function of intent: it sees rows, intent, api and the standard library, and never another feature, or the two could not be compiled alone",
			badPath: "pkg/compile/pod/pod.go", bad: `import _ "github.com/portolan-cni/portolan/pkg/compile/topology"`,
			goodPath: "pkg/compile/registry.go",
		},
		rule{
			name: "imports/product", check: productImports,
			reason:  "pkg is what programs are made of: it knows neither a program of cmd nor the lab; a program knows no other program and not the lab, but the parts of its own that tests of the whole run without it, and of the manager's what it decides without I/O (claims, foresee), which plans ask",
			badPath: "pkg/host/a.go", bad: `import _ "github.com/portolan-cni/portolan/cmd/portolan-node"`,
			goodPath: "pkg/host/a.go", good: `import _ "github.com/portolan-cni/portolan/pkg/rows"`,
		},
		rule{
			name: "imports/testing", check: testingImports,
			reason:  "what only tests need does not belong in a binary",
			badPath: "pkg/host/a.go", bad: `import _ "testing"`,
			goodPath: "pkg/ovsdb/ovsdbtest/a.go",
		})
}

// third reports whether an import path is neither ours nor the standard library's.
func third(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".") && !strings.HasPrefix(path, modulePath)
}

// check leaves tests alone, and the fakes for them: packages named …test.
func (l layer) check(s source) []finding {
	if s.test || strings.HasSuffix(s.dir, "test") || !s.under(l.dir) || s.under(l.except...) {
		return nil
	}
	var out []finding
	for _, i := range s.imports() {
		if ours, ok := strings.CutPrefix(i.path, modulePath); ok {
			if !within(ours, append(l.ours, l.dir)...) || within(ours, l.except...) {
				out = append(out, s.at(i.spec, "imports %s", ours))
			}
			continue
		}
		allowed := l.others == nil || slices.ContainsFunc(l.others, func(p string) bool { return within(i.path, p) })
		if third(i.path) && !allowed {
			out = append(out, s.at(i.spec, "imports %s", i.path))
		}
	}
	return out
}

func (o owner) check(s source) []finding {
	if s.lab() || s.under(o.dirs...) {
		return nil
	}
	if s.test && o.prefix == "github.com/vishvananda/netlink" {
		return nil // tests look at the kernel to see what was done
	}
	var out []finding
	for _, i := range s.imports() {
		if strings.HasPrefix(i.path+"/", strings.TrimSuffix(o.prefix, "/")+"/") {
			out = append(out, s.at(i.spec, "imports %s", i.path))
		}
	}
	return out
}

// featureImports holds the directories below pkg/compile apart. The registry,
// pkg/compile itself, names them all and the engine.
func featureImports(s source) []finding {
	if s.test || !strings.HasPrefix(s.dir, "pkg/compile/") {
		return nil
	}
	feature := strings.Join(strings.SplitN(s.dir, "/", 4)[:3], "/")
	var out []finding
	for _, i := range s.imports() {
		ours, ok := strings.CutPrefix(i.path, modulePath)
		allowed := ok && (within(ours, "pkg/rows", "pkg/api", feature) || ours == "pkg/intent")
		if !allowed && (ok || third(i.path)) {
			out = append(out, s.at(i.spec, "imports %s", i.path))
		}
	}
	return out
}

func productImports(s source) []finding {
	if !s.under("pkg", "cmd", "multus", "sriov", "offload") || s.test {
		return nil
	}
	var out []finding
	for _, i := range s.imports() {
		ours, ok := strings.CutPrefix(i.path, modulePath)
		if program, _, _ := strings.Cut(strings.TrimPrefix(s.dir, "cmd/"), "/"); s.under("cmd") && within(ours, "cmd/"+program) {
			continue
		}
		if ok && within(ours, "cmd", "e2e") && !within(ours, "cmd/portolan-manager/claims", "cmd/portolan-manager/foresee") {
			out = append(out, s.at(i.spec, "imports %s", ours))
		}
	}
	return out
}

// testingImports lets script import what tests need: its verbs are the test language.
func testingImports(s source) []finding {
	if s.test || s.lab() || strings.HasSuffix(s.dir, "test") || s.under("pkg/script") {
		return nil
	}
	var out []finding
	for _, i := range s.imports() {
		if within(i.path, "testing", "github.com/google/go-cmp", "github.com/rogpeppe/go-internal") {
			out = append(out, s.at(i.spec, "imports %s", i.path))
		}
	}
	return out
}
