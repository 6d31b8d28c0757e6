package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

const clusterFile = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: c}
spec: {zone: global, databases: [192.0.2.1, 192.0.2.2, 192.0.2.3], clusterSubnets: [10.244.0.0/16/24], serviceSubnets: [10.96.0.0/16]}
`

func config(t *testing.T, text string) *Config {
	t.Helper()
	c := defaults()
	c.File = filepath.Join(t.TempDir(), "cluster.yaml")
	if err := os.WriteFile(c.File, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDaemonsTakeTheirFlags starts each daemon with --version after its own flags:
// one that does not know a flag refuses before it prints a version.
func TestDaemonsTakeTheirFlags(t *testing.T) {
	for _, text := range []string{clusterFile, strings.Replace(clusterFile, "zone: global", "zone: global, insecureDatabases: true", 1)} {
		p, err := config(t, text).load()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range p.daemons(netip.MustParseAddr("192.0.2.2")) {
			out, err := ovsdbtest.Command(d.Argv[0], append(slices.Clone(d.Argv[1:]), "--version")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), d.Argv[0]) {
				t.Errorf("%v: %v: %s", d.Argv, err, out)
			}
			line := strings.Join(d.Argv, " ")
			if plain := strings.Contains(line, "tcp:"); plain != p.databases.Insecure || plain == strings.Contains(line, "--ca-cert=") {
				t.Errorf("insecure %v: %s", p.databases.Insecure, line)
			}
			if d.Name == "ovsdb-server-nb" && strings.Contains(line, "ca-nodes") {
				t.Errorf("the northbound database admits nodes: %s", line)
			}
		}
	}
}

func TestWrongPlacesAreRefused(t *testing.T) {
	if _, err := config(t, strings.Replace(clusterFile, "zone: global, databases: [192.0.2.1, 192.0.2.2, 192.0.2.3]", "zone: node", 1)).load(); err == nil || !strings.Contains(err.Error(), "no portolan-controller must run") {
		t.Errorf("a zone per node: %v", err)
	}
	c := config(t, clusterFile)
	p, err := c.load()
	if err != nil {
		t.Fatal(err)
	}
	c.NodeIP = "192.0.2.9"
	if _, err := c.self(p.databases); err == nil || !strings.Contains(err.Error(), "192.0.2.9") {
		t.Errorf("a server on a node that is not named: %v", err)
	}
}

type counted struct{ put, synced int }

func (c *counted) Put(intent.Object) { c.put++ }
func (c *counted) Delete(intent.Key) {}
func (c *counted) Synced()           { c.synced++ }

// TestNothingIsWrittenBeforeAllIsKnown holds the engine back until all sources
// are listed: what is not there yet would be taken for deleted.
func TestNothingIsWrittenBeforeAllIsKnown(t *testing.T) {
	s := &counted{}
	done := 0
	in := newIntake(s, newRegister(), func() { done++ })
	for i, source := range append([]kube.Source{kube.Pods, kube.Nodes, kube.Nodes}, kube.Sources()...) {
		if s.synced != 0 || done != 0 {
			t.Fatalf("synced after %d sources", i)
		}
		in.Synced(source)
	}
	if s.synced != 1 || done != 1 {
		t.Errorf("synced %d times, told %d times; want once", s.synced, done)
	}
}

func TestChassisThatNobodyHasGoAfterAWhile(t *testing.T) {
	r := newRegister()
	now := time.Unix(1e9, 0)
	for node, chassis := range map[string]string{"kept": "k", "new": "", "reborn": "second"} {
		r.put(&intent.Node{Name: node, Chassis: chassis})
	}
	list := []ovsdb.Chassis{
		{Name: "k", Hostname: "kept"}, {Name: "n", Hostname: "new"}, {Name: "first", Hostname: "reborn"}, {Name: "second", Hostname: "reborn"},
		{Name: "g", Hostname: "gone"}, {Name: "late", Hostname: "late"},
	}
	if got := r.gone(list, now); len(got) != 0 {
		t.Errorf("at once: %q, want none", got)
	}
	r.put(&intent.Node{Name: "late", Chassis: "late"}) // its annotation came after its chassis
	now = now.Add(chassisGrace)
	got := r.gone(list, now)
	slices.Sort(got)
	if !slices.Equal(got, []string{"first", "g"}) {
		t.Errorf("after the grace: %q, want first and g", got)
	}
	r.remove("kept")
	if got := r.gone(list[:1], now); len(got) != 0 {
		t.Errorf("the chassis of a node that has just been deleted: %q, want a grace of its own", got)
	}
}
