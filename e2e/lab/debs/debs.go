// Package debs answers: which packages of a Debian suite does a set of names need,
// in which versions, and what is in them? Nothing is installed: packages are
// unpacked into a directory, no script of theirs runs, and apt works on lists of
// its own, beside those of the machine, whose mirror and keys it uses.
//
//	Set ──apt-get update, -s install──> versions-SET-HASH.json ──> []Package (part of a cache key)
//	[]Package ──apt-get download──> *.deb ──dpkg-deb -x──> directory
//
// The versions are those that the mirror had when it was last asked, and stay so
// until they are resolved again: a build is the same today and tomorrow, and needs
// no network when its products are cached. A mirror keeps only the newest
// versions, so a download may fail with ErrFetch; who asks then resolves again.
package debs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// ErrFetch is in the error of a download: the versions may be gone from the mirror.
var ErrFetch = errors.New("packages not fetched")

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Suite is a suite of a mirror, with the directory for what apt knows of it.
type Suite struct {
	Name   string // "trixie"
	Mirror string // URI
	Cache  cache.Store
	Log    io.Writer // what apt says
}

// Set names packages that are wanted with what they depend on.
type Set struct {
	Name     string
	Packages []string
	// Only and Without are path.Match patterns of package names: if Only is not
	// empty, what matches none of it is left out, and so is what matches Without.
	Only, Without []string
}

// Package is a binary package in one version.
type Package struct{ Name, Version string }

// String is as apt takes it.
func (p Package) String() string { return p.Name + "=" + p.Version }

// Parts gives packages as parts of a cache key.
func Parts(pkgs []Package) []string {
	out := make([]string, len(pkgs))
	for i, p := range pkgs {
		out[i] = p.String()
	}
	return out
}

// Version is that of the one package with a name, "" if it is not among them.
func Version(pkgs []Package, name string) string {
	for _, p := range pkgs {
		if p.Name == name {
			return p.Version
		}
	}
	return ""
}

func (s Suite) dir() string { return filepath.Join(s.Cache.Dir, "debs-"+s.Name) }

// Resolve gives the packages of a set, sorted by name. It asks the mirror when the
// set was never resolved, or again is true.
func (s Suite) Resolve(ctx context.Context, set Set, again bool) ([]Package, error) {
	unlock, err := s.Cache.Lock("debs-" + s.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	file := s.versionsFile(set)
	if text, err := os.ReadFile(file); err == nil && !again {
		var out []Package
		if err := json.Unmarshal(text, &out); err == nil && len(out) > 0 {
			return out, nil
		}
	}
	if err := s.update(ctx); err != nil {
		return nil, err
	}
	said, err := s.apt(ctx, "", append([]string{"-s", "install", "--no-install-recommends"}, set.Packages...)...)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", set.Name, err)
	}
	out := set.choose(parseSimulation(said))
	if len(out) == 0 {
		return nil, fmt.Errorf("set %s: apt would install none of %v (it leaves out all but %v, and %v)", set.Name, set.Packages, set.Only, set.Without)
	}
	return out, s.remember(set, file, out)
}

func (s Suite) versionsFile(set Set) string {
	parts := slices.Concat([]string{s.Mirror, s.Name}, set.Packages, []string{"only"}, set.Only, []string{"without"}, set.Without)
	k := cache.KeyOf("versions-"+set.Name, parts...)
	return filepath.Join(s.dir(), k.Name+"-"+k.Hash+".json")
}

// remember writes the versions, whole or not at all, and drops those of the set as it was.
func (s Suite) remember(set Set, file string, pkgs []Package) error {
	text, err := json.MarshalIndent(pkgs, "", " ")
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(s.dir(), "versions-"+set.Name+"-*.json"))
	if err != nil {
		return err
	}
	for _, f := range old {
		os.Remove(f)
	}
	if err := os.WriteFile(file+".half", text, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".half", file)
}

// update gets the suite's lists.
func (s Suite) update(ctx context.Context) error {
	if _, err := os.Stat(keyring); err != nil {
		return fmt.Errorf("package debian-archive-keyring is missing: %w", err)
	}
	for _, d := range []string{"sources.list.d", "lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(s.dir(), d), 0o755); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n", s.Mirror, s.Name, keyring)
	if err := os.WriteFile(filepath.Join(s.dir(), "sources.list.d", "suite.sources"), []byte(source), 0o644); err != nil {
		return err
	}
	// By default a mirror that does not answer is a warning.
	if _, err := s.apt(ctx, "", "-qq", "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return fmt.Errorf("lists of %s from %s: %w", s.Name, s.Mirror, err)
	}
	return nil
}

// apt runs apt-get on the suite's own lists, as on a machine that has nothing installed.
func (s Suite) apt(ctx context.Context, dir string, args ...string) (string, error) {
	argv := []string{"apt-get"}
	for _, o := range []string{
		"Dir::Etc::sourcelist=/dev/null", "Dir::Etc::sourceparts=" + filepath.Join(s.dir(), "sources.list.d"),
		"Dir::Etc::preferences=/dev/null", "Dir::Etc::preferencesparts=/dev/null",
		"Dir::State::lists=" + filepath.Join(s.dir(), "lists"), "Dir::State::status=/dev/null",
		"Dir::Cache=" + s.dir(), "Dir::Cache::archives=" + filepath.Join(s.dir(), "archives"),
		"APT::Architecture=amd64", "APT::Architectures=amd64", "APT::Sandbox::User=root", "Acquire::Languages=none", "Acquire::Retries=3",
	} {
		argv = append(argv, "-o", o)
	}
	return proc.Cmd{Argv: append(argv, args...), Dir: dir, Env: []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}, Log: s.Log}.Output(ctx)
}

// Unpack fetches the packages and unpacks them into root, which it makes.
func (s Suite) Unpack(ctx context.Context, pkgs []Package, root string) error {
	unlock, err := s.Cache.Lock("debs-" + s.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	files, err := os.MkdirTemp(filepath.Dir(root), "debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(files)
	if _, err := s.apt(ctx, files, append([]string{"-q", "download"}, Parts(pkgs)...)...); err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	debs, err := filepath.Glob(filepath.Join(files, "*.deb"))
	if err != nil {
		return err
	}
	if len(debs) != len(pkgs) {
		return fmt.Errorf("%w: %d packages of %s, got %d files", ErrFetch, len(pkgs), s.Name, len(debs))
	}
	slices.SortFunc(debs, baseFirst)
	for _, f := range debs {
		if err := proc.Run(ctx, "dpkg-deb", "-x", f, root); err != nil {
			return err
		}
	}
	return nil
}

// baseFirst puts base-files first: it has the links from /bin and /lib into /usr.
func baseFirst(a, b string) int {
	rank := func(f string) string {
		name := filepath.Base(f)
		if strings.HasPrefix(name, "base-files_") {
			return ""
		}
		return name
	}
	return strings.Compare(rank(a), rank(b))
}

var instLine = regexp.MustCompile(`(?m)^Inst (\S+) (?:\[\S+\] )?\((\S+)`)

// parseSimulation reads what apt-get -s says it would install.
func parseSimulation(said string) []Package {
	var out []Package
	for _, m := range instLine.FindAllStringSubmatch(said, -1) {
		out = append(out, Package{Name: m[1], Version: m[2]})
	}
	slices.SortFunc(out, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (set Set) choose(all []Package) []Package {
	matches := func(patterns []string, name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok })
	}
	return slices.DeleteFunc(all, func(p Package) bool {
		return len(set.Only) > 0 && !matches(set.Only, p.Name) || matches(set.Without, p.Name)
	})
}
