package debs

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
)

const said = `NOTE: This is only a simulation!
Inst libc6 (2.41-12+deb13u5 Debian:13.8/stable [amd64]) []
Inst qemu-system-x86 (1:10.0.13+ds-0+deb13u1 Debian:13.8/stable [amd64])
Inst bash [5.2-1] (5.2.37-2+b9 Debian:13.8/stable [amd64])
Conf libc6 (2.41-12+deb13u5 Debian:13.8/stable [amd64])
`

func TestSimulationGivesVersions(t *testing.T) {
	want := []Package{{"bash", "5.2.37-2+b9"}, {"libc6", "2.41-12+deb13u5"}, {"qemu-system-x86", "1:10.0.13+ds-0+deb13u1"}}
	got := parseSimulation(said)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if v := Version(got, "qemu-system-x86"); v != "1:10.0.13+ds-0+deb13u1" {
		t.Errorf("version %q", v)
	}
	if v := Version(got, "qemu"); v != "" {
		t.Errorf("a package that is not there has version %q", v)
	}
}

func TestPatternsLeaveOut(t *testing.T) {
	all := []Package{{"libperl5.40", "1"}, {"perl", "1"}, {"qemu-system-x86", "1"}, {"qemu-system-common", "1"}}
	got := Set{Without: []string{"perl", "libperl*"}}.choose(slices.Clone(all))
	if want := []string{"qemu-system-x86=1", "qemu-system-common=1"}; !slices.Equal(Parts(got), want) {
		t.Errorf("without: got %v, want %v", got, want)
	}
	got = Set{Only: []string{"qemu-*"}, Without: []string{"*-common"}}.choose(slices.Clone(all))
	if want := []string{"qemu-system-x86=1"}; !slices.Equal(Parts(got), want) {
		t.Errorf("only: got %v, want %v", got, want)
	}
}

func TestBaseFilesIsUnpackedFirst(t *testing.T) {
	files := []string{"/d/adduser_3_all.deb", "/d/base-files_13_amd64.deb", "/d/bash_5_amd64.deb", "/d/apt_3_amd64.deb"}
	slices.SortFunc(files, baseFirst)
	if files[0] != "/d/base-files_13_amd64.deb" || files[1] != "/d/adduser_3_all.deb" && files[1] != "/d/apt_3_amd64.deb" {
		t.Errorf("order %v", files)
	}
}

func TestWhatWasResolvedIsNotAskedAgain(t *testing.T) {
	s := Suite{Name: "trixie", Mirror: "http://mirror.invalid/debian", Cache: cache.Store{Dir: t.TempDir()}}
	set := Set{Name: "qemu", Packages: []string{"qemu-system-x86"}}
	if err := os.MkdirAll(s.dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	want := []Package{{"qemu-system-x86", "1:10.0.13"}}
	if err := s.remember(set, s.versionsFile(set), want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Resolve(t.Context(), set, false) // the mirror does not exist
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	other := set
	other.Without = []string{"perl"}
	if s.versionsFile(set) == s.versionsFile(other) {
		t.Error("another set, the same file")
	}
	if err := s.remember(other, s.versionsFile(other), want); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(s.dir(), "versions-*"))
	if err != nil || len(files) != 1 {
		t.Errorf("files %v, %v: those of the set as it was are left", files, err)
	}
}
