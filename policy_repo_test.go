package portolan_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var replaceLine = regexp.MustCompile(`(?m)^\s*(replace\b|\S+ => )`)

// TestNoReplace holds for the product's go.mod. The lab's needs replaces, because
// k8s.io/kubernetes cannot be imported without, and is a module of its own for that.
func TestNoReplace(t *testing.T) {
	text := read(t, "go.mod")
	if m := replaceLine.FindString(text); m != "" {
		t.Errorf("go.mod has %q; the rule: no replace, since nobody who imports or installs this module would get it", strings.TrimSpace(m))
	}
	if !replaceLine.MatchString("\treplace a => b v1\n") {
		t.Error("a replace was not found")
	}
}

func TestGoVersion(t *testing.T) {
	if text := read(t, "go.mod"); !regexp.MustCompile(`(?m)^go 1\.26(\.\d+)?$`).MatchString(text) {
		t.Error("go.mod does not say go 1.26: one language version, the one that CI has")
	}
	if strings.Contains(read(t, "go.mod"), "\ntoolchain ") {
		t.Error("go.mod has a toolchain line: it would download another Go on a machine that has a good one")
	}
}

func TestChangelogHasUnreleased(t *testing.T) {
	if !strings.Contains(read(t, "CHANGELOG.md"), "\n## [Unreleased]\n") {
		t.Error("CHANGELOG.md has no section [Unreleased]: a change is written down with the change, not when a release is made")
	}
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// TestDocsNameFilesThatExist keeps prose true: a path in code quotes is a path,
// and what follows a colon is a function or method in that file.
func TestDocsNameFilesThatExist(t *testing.T) {
	docs := []string{"README.md", "CONTRIBUTING.md"}
	for _, pattern := range []string{"docs/*.md", "docs/adr/*.md"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, more...)
	}
	found := 0
	for _, doc := range docs {
		for _, m := range codeSpan.FindAllStringSubmatch(read(t, doc), -1) {
			word, _, _ := strings.Cut(m[1], " ")
			name, function, _ := strings.Cut(word, ":")
			if !repoPath(name) {
				continue
			}
			found++
			if err := exists(name, function); err != nil {
				t.Errorf("%s names %s: %v", doc, word, err)
			}
		}
	}
	if found == 0 {
		t.Error("no path found in any document: the pattern is wrong")
	}
	if exists("policy_repo_test.go", "NoSuchFunction") == nil || exists("no/such/file.go", "") == nil {
		t.Error("a name that does not exist was not found")
	}
}

// exists says what is wrong with a path, and a function in it if one is named.
func exists(path, function string) error {
	text, err := os.ReadFile(path)
	if function == "" {
		matches, err := filepath.Glob(path)
		if err == nil && len(matches) == 0 {
			err = os.ErrNotExist
		}
		return err
	}
	if err == nil && !regexp.MustCompile(`(?m)^func (\([^)]*\) )?`+regexp.QuoteMeta(function)+`[\[(]`).Match(text) {
		return errors.New("no such function in that file")
	}
	return err
}

// repoPath tells paths of this repository from commands, annotations and flags.
func repoPath(s string) bool {
	first, _, ok := strings.Cut(s, "/")
	if !ok || strings.ContainsAny(s, "<>…{}$") || strings.Contains(s, "NAME") {
		return false
	}
	switch first {
	case "cmd", "pkg", "docs", "deploy", "e2e", ".ci":
		return true
	}
	return false
}

var (
	testName = regexp.MustCompile(`\bTest[A-Z]\w*`)
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(`)
)

// TestErrorsNameTheirTests: docs/errors.md says of each message which test proves it. A name
// may be the beginning of several.
func TestErrorsNameTheirTests(t *testing.T) {
	var have []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			for _, m := range testFunc.FindAllStringSubmatch(read(t, path), -1) {
				have = append(have, m[1])
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(have)
	there := func(name string) bool {
		i, _ := slices.BinarySearch(have, name)
		return i < len(have) && strings.HasPrefix(have[i], name)
	}
	for _, name := range testName.FindAllString(read(t, "docs/errors.md"), -1) {
		if !there(name) {
			t.Errorf("docs/errors.md names %s, and there is no such test", name)
		}
	}
	if there("TestNobodyHasWrittenThis") || !there("TestErrorsNameTheirTests") {
		t.Error("tests are not found by their names")
	}
}

var relativeLink = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)

func TestDocsLinksResolve(t *testing.T) {
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "e2e/lab/*.md"} {
		docs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range docs {
			for _, m := range relativeLink.FindAllStringSubmatch(read(t, doc), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
					t.Errorf("%s links to %s, which does not exist", doc, m[1])
				}
			}
		}
	}
}

var makeTarget = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
var makeCall = regexp.MustCompile("`make ([a-z0-9-]+)")

// TestDocsNameMakeTargets keeps the commands that documents name runnable.
func TestDocsNameMakeTargets(t *testing.T) {
	targets := map[string]bool{}
	for _, m := range makeTarget.FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets[m[1]] = true
	}
	for _, want := range strings.Fields("build check test test-full demo up down e2e bench generate clean help") {
		if !targets[want] {
			t.Errorf("Makefile has no target %s", want)
		}
	}
	for _, doc := range []string{"README.md", "CONTRIBUTING.md", "docs/testing.md", "docs/architecture.md"} {
		for _, m := range makeCall.FindAllStringSubmatch(read(t, doc), -1) {
			if !targets[m[1]] {
				t.Errorf("%s names make %s, which the Makefile does not have", doc, m[1])
			}
		}
	}
}
