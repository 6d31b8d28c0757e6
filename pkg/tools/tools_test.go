package tools

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestNothingIsChanged holds the list to commands that look.
func TestNothingIsChanged(t *testing.T) {
	looks := []string{"dump", "show", "dump-flows", "dump-ports-desc", "dump-ports", "dpctl/show", "dpctl/dump-flows", "dpctl/ct-stats-show",
		"coverage/show", "memory/show", "connection-status", "ct-zone-list", "inc-engine/show-stats", "address", "route", "rule", "list"}
	changes := []string{"set", "add", "del", "clear", "flush", "destroy", "exit", "replace-flows", "restore", "transact"}
	for _, tool := range List(Databases{OVS: "unix:/o", NB: "unix:/n", SB: "unix:/s"}) {
		if !slices.ContainsFunc(tool.Argv, func(a string) bool { return slices.Contains(looks, a) }) {
			t.Errorf("%s: %v is not known to look only", tool.Name, tool.Argv)
		}
		for _, a := range tool.Argv {
			if slices.Contains(changes, a) {
				t.Errorf("%s changes something: %v", tool.Name, tool.Argv)
			}
		}
	}
}

func TestOnlyWhatIsListedRuns(t *testing.T) {
	h := Handler(Databases{OVS: "unix:/nowhere"})
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, text := ask(Path); code != http.StatusOK || !strings.Contains(text, "flows-br-int\n") || strings.Contains(text, "nb.json") {
		t.Errorf("%d %s", code, text)
	}
	for _, name := range []string{"sh", "flows-br-int;id", "nb.json"} {
		if code, _ := ask(Path + "/" + name); code != http.StatusNotFound {
			t.Errorf("%s: %d", name, code)
		}
	}
	if code, text := ask(Path + "/ovs-show"); code != http.StatusServiceUnavailable || !strings.Contains(text, "ovs-vsctl") {
		t.Errorf("%d %s", code, text)
	}
}
