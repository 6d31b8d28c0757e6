//go:build kernel

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// named is a pod of the node's in a file.
func named(name string) string {
	return strings.NewReplacer("name: web", "name: "+name, "uid: u1", "uid: u-"+name).Replace(podFile)
}

// TestForeignRowsHarmNothingElse has a router and a switch of somebody else's in
// the node's database, with a port of a name that a pod needs: that pod waits and says
// for whom, the others get their ports and attach, and what is foreign stays.
func TestForeignRowsHarmNothingElse(t *testing.T) { apart(t, foreign) }

func foreign(t *testing.T, dir string) {
	tr := ready(t, dir)
	if out, err := tr.run("ovn-nbctl", "lr-add", "their-router", "--", "ls-add", "their-switch", "--", "lsp-add", "their-switch", "default_late"); err != nil {
		t.Fatal(err, out)
	}
	theirs := func() string {
		out, err := tr.run("ovn-nbctl", "--bare", "--columns=_uuid,name,ports", "find", "Logical_Switch", "name=their-switch")
		router, err2 := tr.run("ovn-nbctl", "--bare", "--columns=_uuid,name", "find", "Logical_Router", "name=their-router")
		if err != nil || err2 != nil || !strings.Contains(router, "their-router") {
			t.Errorf("%v %v %q %q", err, err2, out, router)
		}
		return out + router
	}
	before := theirs()
	tr.write("intent/all.yaml", nodeFile+podFile+named("late")+named("more"))
	tr.until("the third pod's port, and the second's reason", func() error {
		more, err := tr.run("ovn-nbctl", "--bare", "--columns=addresses", "find", "Logical_Switch_Port", "name=default_more")
		said, _ := tr.portolan("explain", "Pod/default/late")
		if err != nil || !strings.Contains(more, "10.244.1.") || !strings.Contains(said, "NB:Logical_Switch_Port(default_late) to have its name, held by NB:Logical_Switch_Port row ") {
			return fmt.Errorf("%v %q %s", err, more, said)
		}
		return nil
	})
	if out, err := tr.run("ip", "netns", "add", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tr.plugin("ADD"); err != nil || !strings.Contains(out, "10.244.1.3/24") {
		t.Errorf("ADD of another pod: %v: %s", err, out)
	}
	if after := theirs(); after != before {
		t.Errorf("theirs is\n%s\nwas\n%s", after, before)
	}
}

// TestAMisspeltClusterFileChangesNothing starts the agent on a Cluster file with a
// mistake: it ends at once, names the field, and the machine's links are as they were.
func TestAMisspeltClusterFileChangesNothing(t *testing.T) {
	apart(t, func(t *testing.T, dir string) {
		tr := tree{t: t, root: dir + "/root"}
		tr.mounts(dir)
		tr.write("etc/portolan/cluster.yaml", strings.Replace(clusterFile, "clusterSubnets", "clusterSubnet", 1))
		tr.write("intent/all.yaml", nodeFile)
		tr.start("ovsdb-server-ovs", "portolan-node", "daemon", "ovsdb-server-ovs")
		tr.until("OVS's database", func() error { _, err := tr.run("ovs-vsctl", "show"); return err })
		links := func() string {
			out, err := exec.Command("ip", "-o", "addr").Output()
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		before := links()
		out, err := tr.command(t.Context(), "portolan-node", "--node-name=n1", "--intent-dir=/intent", "--health-bind=").CombinedOutput()
		if err == nil || !strings.Contains(string(out), `unknown field "clusterSubnet": did you mean spec.clusterSubnets?`) {
			t.Errorf("%v: %s", err, out)
		}
		if after := links(); after != before {
			t.Errorf("links are\n%s\nwere\n%s", after, before)
		}
	})
}
