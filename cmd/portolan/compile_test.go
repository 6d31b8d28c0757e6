package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const clusterYAML = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: cluster}
spec:
  node: node1
  clusterSubnets: [10.244.0.0/16/24]
`

const nodeYAML = `apiVersion: v1
kind: Node
metadata:
  name: node1
  annotations:
    k8s.ovn.org/node-id: "2"
    k8s.ovn.org/node-subnets: '{"default":["10.244.1.0/24"]}'
`

func compileFiles(t *testing.T, files map[string]string, args ...string) (out, errs string, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := root("portolan")
	var o, e bytes.Buffer
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(append([]string{"compile", "-f", dir}, args...))
	err = cmd.Execute()
	return o.String(), e.String(), err
}

func TestCompilePrintsRows(t *testing.T) {
	files := map[string]string{"1.yaml": nodeYAML, "2.yml": clusterYAML, "notes.txt": "not read"}
	out, errs, err := compileFiles(t, files, "-t", "NB:Logical_Switch")
	if err != nil || errs != "" {
		t.Fatalf("%v, %s", err, errs)
	}
	if !strings.Contains(out, "NB:Logical_Switch(node1)\n") || strings.Contains(out, "NB:Logical_Router(") {
		t.Errorf("found\n%s", out)
	}
}

func TestCompileExplains(t *testing.T) {
	out, _, err := compileFiles(t, map[string]string{"a.yaml": clusterYAML + "---\n" + nodeYAML}, "--explain", "node/node1")
	if err != nil || !strings.Contains(out, "reads Node/node1\n") {
		t.Errorf("%v, found\n%s", err, out)
	}
	if _, _, err := compileFiles(t, map[string]string{"a.yaml": clusterYAML}, "--explain", "node/other"); err == nil {
		t.Error("an unknown unit was explained")
	}
}

func TestCompileReportsProblems(t *testing.T) {
	bad := strings.Replace(nodeYAML, "10.244.1.0/24", "10.244.1.300/24", 1)
	_, errs, err := compileFiles(t, map[string]string{"a.yaml": clusterYAML + "---\n" + bad})
	if err == nil || !strings.Contains(errs, "10.244.1.300") {
		t.Errorf("%v, found %q", err, errs)
	}
	if _, _, err := compileFiles(t, nil); err == nil {
		t.Error("a directory without files was compiled")
	}
}
