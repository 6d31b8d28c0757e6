package portolan_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// packages groups the sources by directory.
func packages(all []source) map[string][]source {
	out := map[string][]source{}
	for _, s := range all {
		out[s.dir] = append(out[s.dir], s)
	}
	return out
}

func TestOnePackageComment(t *testing.T) {
	found := packageComments(sources(t))
	fail(t, "each package has one package comment: the question it answers, its inputs, outputs and invariants", found)
	if len(packageComments([]source{example(t, "pkg/a/a.go", "")})) == 0 {
		t.Error("a package without a comment was not found")
	}
}

// packageComments looks at packages with more than tests; the root has tests only.
func packageComments(all []source) []finding {
	var out []finding
	for dir, files := range packages(all) {
		var with []string
		code := false
		for _, s := range files {
			code = code || !s.test || dir == "."
			if s.file.Doc != nil {
				with = append(with, path.Base(s.path))
			}
		}
		if code && len(with) != 1 {
			out = append(out, finding{dir, 0, fmt.Sprintf("%s %v", plural(len(with), "package comment"), with)})
		}
	}
	return out
}

func TestPackageNames(t *testing.T) {
	forbidden := []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "base"}
	var found []finding
	for dir, files := range packages(sources(t)) {
		name := strings.TrimSuffix(files[0].file.Name.Name, "_test")
		if slices.Contains(forbidden, name) || slices.Contains(forbidden, path.Base(dir)) && !within(dir, "pkg/ovsdb") {
			found = append(found, finding{dir, 0, "package " + name})
		}
	}
	fail(t, "a package is named for what it provides; "+strings.Join(forbidden, ", ")+" name nothing, and fill up with everything", found)
}

func TestNoMutableGlobals(t *testing.T) {
	var found []finding
	for _, files := range packages(sources(t)) {
		found = append(found, mutableGlobals(files)...)
	}
	fail(t, "no mutable package globals: a package-level var is an error value, a compiled pattern, a parsed constant, an embedded file, an interface assertion, or an unexported table that nothing assigns to", found)
}

func TestMutableGlobalsBite(t *testing.T) {
	for _, bad := range []string{
		"var Exported = map[string]int{}",
		"var table = map[string]int{}\nfunc f() { table[\"a\"] = 1 }",
		"var n = 1\nfunc f() { n++ }",
		"var list = []int{1}\nfunc f() { list = append(list, 2) }",
		"var list = []int{1}\nfunc f() *[]int { return &list }",
		"var mu sync.Mutex",
		"var cache = make(map[string]int)",
		"var clock = newClock()",
	} {
		if len(mutableGlobals([]source{example(t, "pkg/a/a.go", bad)})) == 0 {
			t.Errorf("found nothing, wanted a finding in:\n%s", bad)
		}
	}
	for _, good := range []string{
		"var ErrGone = errors.New(\"gone\")",
		"var _ I = T{}",
		"var table = map[string]int{\"a\": 1}\nfunc f() { table := map[string]int{}; table[\"a\"] = 1 }",
		"var pattern = regexp.MustCompile(\"a\")",
		"var ClusterKey = Key{1, \".\"}",
	} {
		if found := mutableGlobals([]source{example(t, "pkg/a/a.go", good)}); len(found) > 0 {
			t.Errorf("found %v, wanted nothing in:\n%s", found, good)
		}
	}
}

// constantCalls make values that are never changed.
func constantCalls() []string {
	return []string{"errors.New", "fmt.Errorf", "regexp.MustCompile", "uuid.MustParse", "strings.NewReplacer", "template.Must",
		"netip.MustParseAddr", "netip.MustParsePrefix", "netip.AddrFrom4", "netip.PrefixFrom", "sync.OnceValue", "sync.OnceValues",
		"slices.Concat", "slices.Sorted", "maps.Keys", "resource.MustParse"}
}

// mutableGlobals judges the package-level variables of one package.
func mutableGlobals(files []source) []finding {
	var out []finding
	tables := map[string]source{}
	for _, s := range files {
		if s.generated {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if embedded(g, v) || linked(s, v) || schemeVar(s, v) {
					continue
				}
				out = append(out, judgeVar(s, v)...)
				for _, n := range v.Names {
					tables[n.Name] = s
				}
			}
		}
	}
	delete(tables, "_")
	for _, s := range files {
		for _, n := range writes(s, tables) {
			out = append(out, s.at(n, "changes the package-level var %s", n.Name))
		}
	}
	return out
}

func embedded(g *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, c := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if c != nil && strings.Contains(c.List[len(c.List)-1].Text, "//go:embed") {
			return true
		}
	}
	return false
}

// linked variables are set by the linker: -X …version=….
func linked(s source, v *ast.ValueSpec) bool {
	return within(s.dir, "cmd", "pkg/version") && len(v.Values) == 1 && isLiteral(v.Values[0])
}

// schemeVar lets pkg/api say its group and how to register it, as every
// generator and client of Kubernetes types expects by name.
func schemeVar(s source, v *ast.ValueSpec) bool {
	return s.under("pkg/api") && slices.Contains([]string{"GroupVersion", "SchemeGroupVersion", "SchemeBuilder", "AddToScheme"}, v.Names[0].Name)
}

func isLiteral(e ast.Expr) bool {
	_, ok := e.(*ast.BasicLit)
	return ok
}

// judgeVar looks at a declaration alone.
func judgeVar(s source, v *ast.ValueSpec) []finding {
	if v.Names[0].Name == "_" {
		return nil // an assertion
	}
	if len(v.Values) == 0 {
		return []finding{s.at(v, "%s has no value: it is there to be changed", v.Names[0].Name)}
	}
	var out []finding
	for i, value := range v.Values {
		name := v.Names[min(i, len(v.Names)-1)]
		if !constant(value) {
			out = append(out, s.at(v, "%s is made by something that may change it", name.Name))
		} else if c, ok := value.(*ast.CompositeLit); name.IsExported() && ok && growable(c.Type) {
			out = append(out, s.at(v, "%s is a table that anybody may change", name.Name))
		}
	}
	return out
}

func growable(t ast.Expr) bool {
	switch t := t.(type) {
	case *ast.MapType:
		return true
	case *ast.ArrayType:
		return t.Len == nil
	}
	return false
}

// constant reports whether an expression makes a value with nothing behind it
// that changes by itself.
func constant(e ast.Expr) bool {
	ok := true
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false // code, not state
		case *ast.CallExpr:
			ok = ok && constantCall(n)
		}
		return ok
	})
	return ok
}

// varies reports whether an argument is more than a literal or another call,
// which is judged by itself.
func varies(e ast.Expr) bool {
	_, call := e.(*ast.CallExpr)
	return !call && !isLiteral(e)
}

// constantCall trusts known constructors, and functions that are given literals.
// Flags are of tests: main has its Config.
func constantCall(c *ast.CallExpr) bool {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); ok {
			return slices.Contains([]string{"cmp", "cmpopts", "flag"}, x.Name) || slices.Contains(constantCalls(), x.Name+"."+f.Sel.Name) ||
				ast.IsExported(f.Sel.Name) && len(c.Args) > 0 && !slices.ContainsFunc(c.Args, varies)
		}
		return false
	case *ast.Ident: // a conversion, or a function of this package with literals
		return f.Name != "make" && f.Name != "new" && len(c.Args) > 0
	case *ast.ArrayType, *ast.MapType, *ast.ParenExpr:
		return true
	}
	return false
}

// writes finds assignments to, and addresses taken of, variables of the package.
// A function that declares the name itself means its own.
func writes(s source, globals map[string]source) []*ast.Ident {
	var out []*ast.Ident
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		local := declared(f)
		note := func(e ast.Expr) {
			if id := rootOf(e); id != nil && !local[id.Name] {
				if _, global := globals[id.Name]; global {
					out = append(out, id)
				}
			}
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, l := range n.Lhs {
						note(l)
					}
				}
			case *ast.IncDecStmt:
				note(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					note(n.X)
				}
			case *ast.CallExpr:
				if (isName(n.Fun, "delete") || isName(n.Fun, "clear")) && len(n.Args) > 0 {
					note(n.Args[0])
				}
			}
			return true
		})
	}
	return out
}

// rootOf is the variable that an expression reaches into: t of t.a[i].
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// declared collects every name that a function declares, at any depth.
func declared(f *ast.FuncDecl) map[string]bool {
	out := map[string]bool{}
	fields := func(l *ast.FieldList) {
		if l == nil {
			return
		}
		for _, p := range l.List {
			for _, n := range p.Names {
				out[n.Name] = true
			}
		}
	}
	fields(f.Recv)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			fields(n.Params)
			fields(n.Results)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, l := range n.Lhs {
					if id, ok := l.(*ast.Ident); ok {
						out[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, l := range []ast.Expr{n.Key, n.Value} {
				if id, ok := l.(*ast.Ident); ok {
					out[id.Name] = true
				}
			}
		case *ast.ValueSpec:
			for _, id := range n.Names {
				out[id.Name] = true
			}
		}
		return true
	})
	return out
}

// TestFuzzTargets wants a fuzz target wherever outside input is parsed.
func TestFuzzTargets(t *testing.T) {
	wanted := map[string]string{
		"pkg/rows":        "the text form of rows, typed by people into scripts",
		"pkg/intent/kube": "annotations, that any client of the API may write",
		"pkg/cni":         "the configuration and arguments that a runtime hands in",
		"pkg/ovsdb":       "what a database answers",
		"pkg/trace":       "what ovn-trace prints",
		"pkg/record":      "a recording, which may come from anywhere",
		"multus":          "network-selection annotations and NAD configurations, written by users",
	}
	all := packages(sources(t))
	var found []finding
	for _, dir := range slices.Sorted(maps.Keys(wanted)) {
		files, exists := all[dir]
		if exists && !slices.ContainsFunc(files, hasFuzz) {
			found = append(found, finding{dir, 0, "no func Fuzz…: it parses " + wanted[dir]})
		}
	}
	fail(t, "every parser of outside input has a fuzz target: it must give an error, never a panic", found)
}

func hasFuzz(s source) bool {
	return slices.ContainsFunc(s.file.Decls, func(d ast.Decl) bool {
		f, ok := d.(*ast.FuncDecl)
		return ok && s.test && strings.HasPrefix(f.Name.Name, "Fuzz")
	})
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
