package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestPrintForPeopleAndPrograms(t *testing.T) {
	v := struct {
		Node string `json:"node"`
	}{"a"}
	people := func(w io.Writer) { fmt.Fprintln(w, "for people") }
	for format, want := range map[string]string{"": "for people\n", "json": "{\n  \"node\": \"a\"\n}\n", "yaml": "node: a\n"} {
		var b bytes.Buffer
		if err := (output{format}).print(&b, v, people); err != nil || b.String() != want {
			t.Errorf("-o %q: %v, found %q, wanted %q", format, err, b.String(), want)
		}
	}
	if err := (output{"xml"}).print(io.Discard, v, people); err == nil || !strings.Contains(err.Error(), "xml") {
		t.Errorf("-o xml: %v", err)
	}
}

func TestTableColumns(t *testing.T) {
	tab := table{head: []string{"NODE", "WHY"}}
	tab.add("añb", "x")
	tab.add("a", dash(""))
	var b bytes.Buffer
	tab.write(&b)
	if want := "NODE  WHY\nañb   x\na     -\n"; b.String() != want {
		t.Errorf("found\n%s wanted\n%s", b.String(), want)
	}
}

func TestPluginName(t *testing.T) {
	cmd := root("kubectl-portolan")
	var b bytes.Buffer
	cmd.SetOut(&b)
	cmd.SetArgs([]string{"--help"})
	if err := cmd.Execute(); err != nil || !strings.Contains(b.String(), "kubectl portolan [command]") {
		t.Errorf("%v, found\n%s", err, b.String())
	}
}
