// Package portolan_test holds the rules of this repository as tests: what may
// import what, how large things may grow, where processes and goroutines may be
// started. Each rule is one value with its reason, which is printed with what it
// found, and with an example that it must find: a rule that cannot fail is a
// defect too.
//
//	every .go file ──parse──> source ──rule.check──> findings   (TestPolicy)
//	rule.bad       ──parse──> source ──rule.check──> at least 1 (TestRulesBite)
//
// Rules about whole packages and about files that are not Go stand in
// policy_package_test.go and policy_repo_test.go.
package portolan_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// modulePath starts the import path of every package of ours.
const modulePath = "github.com/portolan-cni/portolan/"

// source is one parsed Go file.
type source struct {
	path      string // from the repository's root, with slashes
	dir       string // of path; "." for the root
	lines     int
	test      bool // a _test.go file
	generated bool
	fset      *token.FileSet
	file      *ast.File
}

// finding is one place where a rule is broken.
type finding struct {
	path string
	line int // 0: the file or directory as a whole
	what string
}

func (f finding) String() string {
	if f.line == 0 {
		return f.path + ": " + f.what
	}
	return fmt.Sprintf("%s:%d: %s", f.path, f.line, f.what)
}

// at makes a finding at a node of the source.
func (s source) at(n ast.Node, format string, args ...any) finding {
	return finding{s.path, s.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...)}
}

// under reports whether the file lies in one of the directories or below.
func (s source) under(dirs ...string) bool { return within(s.dir, dirs...) }

func within(dir string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") })
}

// lab reports whether the file belongs to the lab, a module and a program of its own.
func (s source) lab() bool { return s.under("e2e") }

// imported is one import of a file: its path and where it stands.
type imported struct {
	path string
	spec *ast.ImportSpec
}

func (s source) imports() []imported {
	var out []imported
	for _, i := range s.file.Imports {
		if p, err := strconv.Unquote(i.Path.Value); err == nil {
			out = append(out, imported{p, i})
		}
	}
	return out
}

// localName is the name by which the file uses an imported package, "" if it does not.
func (s source) localName(path string) string {
	for _, i := range s.imports() {
		if i.path != path {
			continue
		}
		if i.spec.Name != nil {
			return i.spec.Name.Name
		}
		return filepath.Base(path)
	}
	return ""
}

// calls lists the calls of a package's functions in the file.
func (s source) calls(path string, functions ...string) []*ast.CallExpr {
	name := s.localName(path)
	var out []*ast.CallExpr
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := call.Fun.(*ast.SelectorExpr); ok && name != "" && isName(sel.X, name) && slices.Contains(functions, sel.Sel.Name) {
			out = append(out, call)
		}
		return true
	})
	return out
}

func isName(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// generatedMark is Go's convention; libovsdb's generator breaks its line in two.
var generatedMark = regexp.MustCompile(`(?m)^// Code generated .*?(\n// )?DO NOT EDIT\.$`)

func parseSource(path string, text []byte) (source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return source{}, err
	}
	return source{
		path: path, dir: filepath.ToSlash(filepath.Dir(path)), lines: strings.Count(string(text), "\n"),
		test: strings.HasSuffix(path, "_test.go"), generated: generatedMark.Match(text), fset: fset, file: file,
	}, nil
}

// tree is every Go file of the repository, read once.
var tree = sync.OnceValues(func() ([]source, error) {
	var out []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || path == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s, err := parseSource(filepath.ToSlash(path), text)
		out = append(out, s)
		return err
	})
	return out, err
})

func sources(t *testing.T) []source {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rule is one rule about single files.
type rule struct {
	name   string
	reason string
	check  func(source) []finding
	// badPath and bad are a file that breaks the rule.
	badPath, bad string
	// goodPath and good are a file near to it that does not; good "": the text of bad.
	goodPath, good string
}

func rules() []rule { return slices.Concat(importRules(), codeRules(), sizeRules()) }

func TestPolicy(t *testing.T) {
	all := sources(t)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			var found []finding
			for _, s := range all {
				found = append(found, r.check(s)...)
			}
			fail(t, r.reason, found)
		})
	}
}

// fail prints findings with the reason of the rule they break.
func fail(t *testing.T, reason string, found []finding) {
	t.Helper()
	if len(found) == 0 {
		return
	}
	lines := make([]string, len(found))
	for i, f := range found {
		lines[i] = "  " + f.String()
	}
	slices.Sort(lines)
	t.Errorf("%d places; the rule: %s\n%s", len(found), reason, strings.Join(lines, "\n"))
}

func TestRulesBite(t *testing.T) {
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			if n := len(r.check(example(t, r.badPath, r.bad))); n == 0 {
				t.Errorf("found nothing in %s, wanted a finding:\n%s", r.badPath, r.bad)
			}
			good := r.good
			if good == "" {
				good = r.bad
			}
			if found := r.check(example(t, r.goodPath, good)); len(found) > 0 {
				t.Errorf("found %v, wanted nothing in:\n%s", found, good)
			}
		})
	}
}

func example(t *testing.T, path, text string) source {
	t.Helper()
	s, err := parseSource(path, []byte("package x\n"+text+"\n"))
	if err != nil {
		t.Fatalf("example %s: %v", path, err)
	}
	return s
}
