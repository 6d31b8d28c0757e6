package site

import (
	"strings"
	"testing"
)

func TestNoLabsNamesBeginAsAnothers(t *testing.T) {
	t.Setenv(variable, "")
	unnamed := Base()
	t.Setenv(variable, "b")
	named := Base()
	if unnamed != "portolan" || strings.HasPrefix(named, unnamed+"-") {
		t.Errorf("%q and %q: taking the first down by the prefix %q- must leave the second", unnamed, named, unnamed)
	}
}

func TestNamesThatCannotBePathsAreRefused(t *testing.T) {
	for name, good := range map[string]bool{"": true, "b": true, "dual6": true, "a-b": false, "a/b": false, "..": false, "averyverylongname": false} {
		t.Setenv(variable, name)
		if err := Check(); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
