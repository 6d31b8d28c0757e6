package build

import (
	"slices"
	"testing"
)

func TestMissingPackagesAreNamedOnce(t *testing.T) {
	if got := Missing(func(string) bool { return true }); len(got) != 0 {
		t.Errorf("nothing is missing, got %v", got)
	}
	got := Missing(func(p string) bool { return p != "containerd" && p != "ctr" && p != "etcd" })
	if !slices.Equal(got, []string{"containerd", "etcd-server"}) {
		t.Errorf("missing %v", got)
	}
}

func TestMirrorIsFoundInBothSourceFormats(t *testing.T) {
	for text, want := range map[string]string{
		"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n":       "http://mirror.example/debian",
		"deb http://mirror.example/debian bookworm main\n":                         "http://mirror.example/debian",
		"deb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n":     "http://mirror.example/debian/",
		"URIs: http://mirror.example/debian-security\nURIs: http://other/debian\n": "http://other/debian",
	} {
		m := uri.FindStringSubmatch(text)
		if m == nil || m[1] != want {
			t.Errorf("%q: found %q", text, m)
		}
	}
}
