package portolan_test

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// execAllowed lists what may start processes, with the reason. A pattern is
// path.Match's, or a directory with a slash at its end for all files below it.
func execAllowed() map[string]string {
	return map[string]string{
		"pkg/ovsdb/ovsdbtest/":                       "tests start real OVS and OVN daemons and their tools",
		"pkg/host/flowloader.go":                     "ovs-ofctl: its bundle of replace-flows is atomic, and no Go library has it (decision 30)",
		"cmd/portolan/doctor.go":                     "nft: what iptables-nft and other plugins have left in nftables only nft lists whole; and tools are looked up",
		"pkg/tools/":                                 "OVS's and OVN's own dumps of flows, datapath and databases, for the support bundle: a fixed list of commands that only look",
		"pkg/trace/walk/":                            "ovn-trace: what OVN would do with a packet only OVN's own tracer can say (decision 36)",
		"pkg/host/*_test.go":                         "kernel tests ask ip and nft what the code under test has done, and run ovs-ofctl on a real switch",
		"pkg/daemon/keep.go":                         "keeps vswitchd and its database as children, and starts them again at once (ADR 0019)",
		"pkg/daemon/*_test.go":                       "starts the process that keeps a program, and kills both",
		"pkg/daemon/daemon.go":                       "becomes a daemon of OVS or OVN, whose database file only ovsdb-tool can make or convert",
		"cmd/portolan-node/inspect_kernel_test.go":   "asks that agent with the program that people use, whose exit status is an answer",
		"cmd/portolan-node/intentdir_kernel_test.go": "runs the agent and every daemon as programs, in namespaces of their own",
		"cmd/portolan-node/input_kernel_test.go":     "asks ip what the agent under test has left of the machine",
		"pkg/nstest/":                                "starts the test binary again in namespaces of its own",
		"pkg/durable/*_test.go":                      "kills a process that writes, and makes the disk that loses power",
		"pkg/cni/*_test.go":                          "kernel tests start themselves again to be killed at every step of a call",
		"sriov/*_test.go":                            "kernel tests start themselves again to be killed at every step of giving a device",
		"pkg/cni/delegate/executor.go":               "libcni's plugins of others are programs",
		"cmd/portolan-cni/*_test.go":                 "the program's test runs the program",
		"e2e/":                                       "the lab and the stage runner drive programs: that is their purpose",
	}
}

// goroutineDirs may start goroutines: each of these owns an outside event source.
func goroutineDirs() []string {
	return []string{"cmd", "pkg/ovsdb", "pkg/intent/kube", "pkg/host", "pkg/cni", "pkg/daemon", "pkg/script", "pkg/reach", "sriov", "offload", "e2e"}
}

func codeRules() []rule {
	return []rule{
		{
			name: "no-init", check: initFunctions,
			reason:  "no init(): importing a package changes nothing; what must be set up is set up by main, in an order that can be read",
			badPath: "pkg/host/a.go", bad: "func init() {}",
			goodPath: "pkg/host/a.go", good: "type T struct{}\nfunc (T) init() {}",
		},
		{
			name: "os-exec", check: execImports,
			reason:  "os/exec only in files listed with a reason (execAllowed): a process is slow, has its own idea of success, and parses badly",
			badPath: "pkg/host/links.go", bad: `import _ "os/exec"`,
			goodPath: "pkg/host/flowloader.go",
		},
		{
			name: "goroutines", check: goroutines,
			reason:  "go statements only in cmd, ovsdb, intent/kube, host, cni, script and reach (a stream through the API server has two ends) (and sriov: its plugin, and a thread that enters a namespace and ends with its goroutine if it cannot come back; offload's readers): state has one owner, and what compiles must be deterministic",
			badPath: "pkg/engine/a.go", bad: "func f() { go f() }",
			goodPath: "pkg/ovsdb/a.go",
		},
		{
			name: "no-sleep", check: sleeps,
			reason:  "no time.Sleep: wait on a revision, a notification or a condition with a deadline; a sleep is either too short or wasted",
			badPath: "pkg/engine/a_test.go", bad: "import \"time\"\nfunc f() { time.Sleep(1) }",
			goodPath: "pkg/engine/a_test.go", good: "import \"time\"\nfunc f() { time.After(1) }",
		},
		{
			name: "no-getenv", check: environment,
			reason:  "the environment is read in cmd, e2e, ovsdbtest and nstest only: a package's inputs are its arguments",
			badPath: "pkg/host/a.go", bad: "import \"os\"\nfunc f() string { return os.Getenv(\"X\") }",
			goodPath: "cmd/portolan-node/main.go",
		},
		{
			name: "durable", check: renames,
			reason:  "a file is replaced by pkg/durable alone, beside itself, synced and renamed: six copies of that differed in what a loss of power leaves; pkg/daemon names what ovsdb-tool has written",
			badPath: "pkg/host/a.go", bad: "import \"os\"\nfunc f() error { return os.Rename(\"a.new\", \"a\") }",
			goodPath: "pkg/durable/a.go",
		},
		{
			name: "typed-matches", check: formattedMatches,
			reason:  "a Match is built from typed parts that record the names they use: a name that is missing at run time opens a deny rule without an error (decision 3), so no feature formats or joins one",
			badPath: "pkg/compile/netpol/a.go", bad: "import \"fmt\"\nfunc f(ip string) string { return fmt.Sprintf(\"inport == @pg && ip4.src == %s\", ip) }",
			goodPath: "pkg/compile/netpol/a.go", good: "func f() string { return \"ip4.src == $a\" }",
		},
		{
			name: "no-any-maps", check: anyMaps,
			reason:  "no map[string]any in an exported signature or type: outside input is parsed once, into a type",
			badPath: "pkg/cni/a.go", bad: "func Parse(m map[string]any) {}",
			goodPath: "pkg/cni/a.go", good: "func parse(m map[string]any) {}",
		},
		{
			name: "bool-pairs", check: boolPairs,
			reason:  "no two bool parameters: nobody can read f(true, false)",
			badPath: "pkg/cni/a.go", bad: "func f(a, b bool) {}",
			goodPath: "pkg/cni/a.go", good: "func f(a bool, b int) {}",
		},
		{
			name: "doc-comments", check: undocumented,
			reason:  "every exported name under pkg says what it is, in which unit, and what zero means",
			badPath: "pkg/rows/a.go", bad: "type T struct{}",
			goodPath: "pkg/rows/a.go", good: "// T is a table.\ntype T struct{}",
		},
	}
}

func initFunctions(s source) []finding {
	var out []finding
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && !s.generated {
			out = append(out, s.at(f, "func init"))
		}
	}
	return out
}

func execImports(s source) []finding {
	for entry := range execAllowed() {
		if ok, _ := path.Match(entry, s.path); ok || strings.HasSuffix(entry, "/") && strings.HasPrefix(s.path, entry) {
			return nil
		}
	}
	var out []finding
	for _, i := range s.imports() {
		if i.path == "os/exec" {
			out = append(out, s.at(i.spec, "imports os/exec"))
		}
	}
	return out
}

func goroutines(s source) []finding {
	if s.test || s.under(goroutineDirs()...) {
		return nil
	}
	var out []finding
	ast.Inspect(s.file, func(n ast.Node) bool {
		if g, ok := n.(*ast.GoStmt); ok {
			out = append(out, s.at(g, "starts a goroutine"))
		}
		return true
	})
	return out
}

// sleeps leaves the lab's own program alone: it waits for kernels and kubelets.
func sleeps(s source) []finding {
	if s.lab() && !s.test {
		return nil
	}
	var out []finding
	for _, c := range s.calls("time", "Sleep") {
		out = append(out, s.at(c, "time.Sleep"))
	}
	return out
}

// environment leaves tests alone: they may start themselves again with a mark.
func environment(s source) []finding {
	if s.test || s.under("cmd", "e2e", "pkg/ovsdb/ovsdbtest", "pkg/nstest") {
		return nil
	}
	var out []finding
	for _, c := range s.calls("os", "Getenv", "LookupEnv", "Environ", "ExpandEnv") {
		out = append(out, s.at(c, "reads the environment"))
	}
	return out
}

// renames leaves tests and tools of tests alone.
func renames(s source) []finding {
	if s.test || s.under("pkg/durable", "pkg/daemon", "e2e") {
		return nil
	}
	var out []finding
	for _, c := range s.calls("os", "Rename") {
		out = append(out, s.at(c, "os.Rename"))
	}
	return out
}

// matchText finds OVN match expressions in string literals.
var matchText = regexp.MustCompile(`\b(ip4|ip6|ip|eth|arp|nd|tcp|udp|sctp|icmp4|icmp6|inport|outport|ct|ct_mark|reg\d+)(\.\w+)?\s*(==|!=|&&)`)

func formattedMatches(s source) []finding {
	if s.test || !s.under("pkg/compile") {
		return nil
	}
	var out []finding
	hasMatch := func(n ast.Node) bool {
		found := false
		ast.Inspect(n, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			found = found || ok && lit.Kind == token.STRING && matchText.MatchString(lit.Value)
			return !found
		})
		return found
	}
	for _, c := range s.calls("fmt", "Sprintf", "Sprint", "Appendf") {
		if hasMatch(c) {
			out = append(out, s.at(c, "formats a match"))
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		b, ok := n.(*ast.BinaryExpr)
		if ok && b.Op == token.ADD && hasMatch(b) {
			out = append(out, s.at(b, "joins a match"))
			return false
		}
		return true
	})
	return out
}

func anyMaps(s source) []finding {
	if s.test || s.generated || !s.under("pkg") {
		return nil
	}
	var out []finding
	look := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			m, ok := n.(*ast.MapType)
			if ok && isName(m.Key, "string") && isAny(m.Value) {
				out = append(out, s.at(m, "map[string]any"))
			}
			return true
		})
	}
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() {
				look(d.Type)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok && t.Name.IsExported() {
					look(t.Type)
				}
			}
		}
	}
	return out
}

func isAny(e ast.Expr) bool {
	i, ok := e.(*ast.InterfaceType)
	return isName(e, "any") || ok && i.Methods.NumFields() == 0
}

func boolPairs(s source) []finding {
	var out []finding
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || s.generated {
			continue
		}
		bools := 0
		for _, p := range f.Type.Params.List {
			if isName(p.Type, "bool") {
				bools += max(len(p.Names), 1)
			}
		}
		if bools > 1 {
			out = append(out, s.at(f, "%s has %d bool parameters", f.Name.Name, bools))
		}
	}
	return out
}

// selfEvident methods implement an interface that everybody knows.
func selfEvident(name string) bool {
	return slices.Contains([]string{"String", "Error", "Unwrap", "Len", "Less", "Swap", "ServeHTTP"}, name)
}

func undocumented(s source) []finding {
	if s.test || s.generated || !s.under("pkg", "multus", "sriov", "offload") {
		return nil
	}
	var out []finding
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && !selfEvident(d.Name.Name) && exportedReceiver(d) {
				out = append(out, s.at(d, "%s has no doc comment", d.Name.Name))
			}
		case *ast.GenDecl:
			if d.Doc == nil && d.Tok != token.IMPORT {
				out = append(out, undocumentedSpecs(s, d)...)
			}
		}
	}
	return out
}

func undocumentedSpecs(s source, d *ast.GenDecl) []finding {
	var out []finding
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil {
				out = append(out, s.at(spec, "%s has no doc comment", spec.Name.Name))
			}
		case *ast.ValueSpec:
			if spec.Names[0].IsExported() && spec.Doc == nil && spec.Comment == nil {
				out = append(out, s.at(spec, "%s has no doc comment", spec.Names[0].Name))
			}
		}
	}
	return out
}

// exportedReceiver is true for functions, and for methods of exported types.
func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return true
	}
	t := f.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	switch x := t.(type) {
	case *ast.IndexExpr:
		t = x.X
	case *ast.IndexListExpr:
		t = x.X
	}
	id, ok := t.(*ast.Ident)
	return ok && id.IsExported()
}
