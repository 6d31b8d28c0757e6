package portolan_test

import (
	"go/ast"
	"strings"
	"testing"
)

// The budgets. Up to the soft one is the rule; what lies between is listed by
// TestSizes; past the hard one is an error.
const (
	fileSoft, fileHard         = 400, 600
	functionSoft, functionHard = 60, 80
	maxParams                  = 5
	maxMainLines               = 120
)

func sizeRules() []rule {
	return []rule{
		{
			name: "file-size", check: largeFiles,
			reason:  "a file past 600 lines is two things",
			badPath: "pkg/host/a.go", bad: strings.Repeat("\n", fileHard+1),
			goodPath: "pkg/host/a.go", good: strings.Repeat("\n", fileSoft),
		},
		{
			name: "main-size", check: largeMains,
			reason:  "cmd/*/main.go is flags, Config, wiring and run, in at most 120 lines: what is more belongs in a package with tests",
			badPath: "cmd/portolan/main.go", bad: strings.Repeat("\n", maxMainLines+1),
			goodPath: "cmd/portolan/main.go", good: "func main() {}",
		},
		{
			name: "function-size", check: largeFunctions,
			reason:  "functions up to about 60 lines, 80 for a flat table or switch: a longer one has parts with names of their own",
			badPath: "pkg/host/a.go", bad: "func f() {" + strings.Repeat("\n", functionHard+1) + "}",
			goodPath: "pkg/host/a.go", good: "func f() {" + strings.Repeat("\n", functionHard-2) + "}",
		},
		{
			name: "params", check: manyParams,
			reason:  "up to five parameters: more of them are a struct that has not been named yet",
			badPath: "pkg/host/a.go", bad: "func f(a, b, c int, d, e, f string) {}",
			goodPath: "pkg/host/a.go", good: "func f(a, b, c int, d, e string) {}",
		},
	}
}

func largeFiles(s source) []finding {
	if s.generated || s.lines <= fileHard {
		return nil
	}
	return []finding{{s.path, 0, plural(s.lines, "line")}}
}

func largeMains(s source) []finding {
	if !s.under("cmd") || !strings.HasSuffix(s.path, "/main.go") || s.lines <= maxMainLines {
		return nil
	}
	return []finding{{s.path, 0, plural(s.lines, "line")}}
}

func largeFunctions(s source) []finding { return functionsOver(s, functionHard) }

func functionsOver(s source, budget int) []finding {
	if s.generated {
		return nil
	}
	var out []finding
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
		if n > budget {
			out = append(out, s.at(f, "%s has %s", f.Name.Name, plural(n, "line")))
		}
	}
	return out
}

func manyParams(s source) []finding {
	var out []finding
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && !s.generated && f.Type.Params.NumFields() > maxParams {
			out = append(out, s.at(f, "%s has %s", f.Name.Name, plural(f.Type.Params.NumFields(), "parameter")))
		}
	}
	return out
}

// TestSizes lists, with -v, what is over the soft budgets: the next to be divided.
func TestSizes(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > fileSoft && !s.generated {
			t.Log(finding{s.path, 0, plural(s.lines, "line")})
		}
		for _, f := range functionsOver(s, functionSoft) {
			t.Log(f)
		}
	}
}
