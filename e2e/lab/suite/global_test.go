package suite

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/bare"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// flowRate is of datagrams a second while a daemon of a global zone is killed.
const flowRate = 500

// onlyGlobal skips a test in a lab whose nodes are zones of their own, or that has
// another number of database servers; 0: any.
func onlyGlobal(t *testing.T, servers int) {
	t.Helper()
	p := layout(t)
	if p.Zone != "global" || servers != 0 && p.Databases != servers {
		t.Skipf("the lab has zone %s with %d database servers; want global, %d (0: any)", p.Zone, p.Databases, servers)
	}
}

// eventually asks until a condition holds, or fails with the last answer.
func eventually(t testing.TB, limit time.Duration, what string, ask func() (string, bool)) {
	t.Helper()
	last := ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); <-tick.C {
		var ok bool
		if last, ok = ask(); ok {
			return
		}
	}
	t.Fatalf("%s: not within %v: %s", what, limit, last)
}

// on runs a command on a node; what it prints is the answer also when it fails.
func on(t testing.TB, host string, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return node.Run(ctx, host, argv...)
}

// kill sends SIGKILL to the one process of a node whose command line has all words.
func kill(t testing.TB, host string, words ...string) {
	t.Helper()
	list, err := node.Processes(host)
	if err != nil {
		t.Fatal(err)
	}
	var found []node.Process
	for _, p := range list {
		if p.Program() == words[0] && !slices.ContainsFunc(words[1:], func(w string) bool { return !strings.Contains(p.String(), w) }) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s: %d processes are %q: %v", host, len(found), words, found)
	}
	if err := syscall.Kill(found[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// under runs a fault while datagrams go within a node and between nodes: none may
// be lost. A pod made meanwhile must come up: on a third node, since a port that is
// added to the userspace datapath may itself cost the node a few packets. A run in which a bare bridge of the
// same switch lost packets too proves nothing, and is done again.
func under(t *testing.T, name string, fault func(t *testing.T)) {
	t.Helper()
	for try := range attempts {
		lost, disturbed := once(t, name, fault)
		if !disturbed || try+1 == attempts {
			for _, s := range lost {
				t.Errorf("%s: %s, want none: the databases carry no packets", name, s)
			}
			return
		}
		t.Logf("%s: the bare bridge lost packets meanwhile: the machine is disturbed, once more", name)
	}
}

// flows starts a flow for each pair of places, after that of a bare bridge.
func flows(t *testing.T, pairs ...[2]packets.Place) []*packets.Flow {
	t.Helper()
	for _, n := range layout(t).Machines {
		list, err := node.Processes(n.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Program() != "ovs-vswitchd" {
				continue
			}
			if err := node.Favour(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	wire, err := bare.Make(t.Context(), victim, nil)
	t.Cleanup(func() {
		if err := wire.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []*packets.Flow
	for _, p := range append([][2]packets.Place{{wire.Left, wire.Right}}, pairs...) {
		f, err := packets.StartFlow(p[0], p[1], flowRate)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Arrived(patient); err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	for _, f := range out {
		f.Forget()
	}
	return out
}

// once is one try: what was lost, and whether the bare bridge lost some too.
func once(t *testing.T, name string, fault func(t *testing.T)) (lost []string, disturbed bool) {
	t.Helper()
	fresh(t)
	apply(t, podManifest("a", victim)+podManifest("near", victim)+podManifest("far", other))
	pods := ready(t)
	under := flows(t, [2]packets.Place{pods["a"].Place, pods["near"].Place}, [2]packets.Place{pods["a"].Place, pods["far"].Place})
	fault(t)
	began := time.Now()
	apply(t, podManifest("new", layout(t).Machines[0].Name))
	n := ready(t)["new"]
	took := time.Since(began)
	for _, to := range []pod{pods["far"], pods["near"]} {
		want := otherNode(t)
		if to.Node == n.Node {
			want = sameNode
		}
		if e, err := packets.Ping(n.Place, to.Addr, 56, false, patient); err != nil || e.TTL != want {
			t.Errorf("%s: the pod made meanwhile to %s: %+v, %v; want ttl %d", name, to.Name, e, err, want)
		}
	}
	for i, f := range under {
		s := f.Stop()
		what := []string{"bare bridge", "same node", "other node"}[i]
		t.Logf("%s: %s: %v; a pod made meanwhile was ready after %v", name, what, s, took.Round(100*time.Millisecond))
		switch {
		case i == 0:
			disturbed = s.Lost > 0
		case s.Lost > 0 || s.Sent == 0:
			lost = append(lost, what+": "+s.String())
		}
	}
	return lost, disturbed && len(lost) > 0
}

// TestGlobalLayout looks at the whole: one switch a node and one for its way out, one
// join, one cluster router, a gateway router a node, no transit switch, and every
// chassis in one southbound database.
func TestGlobalLayout(t *testing.T) {
	onlyGlobal(t, 0)
	p := layout(t)
	switches, routers := []string{"join"}, []string{"ovn_cluster_router"}
	for _, n := range p.Machines {
		switches = append(switches, n.Name, "ext_"+n.Name)
		routers = append(routers, "GR_"+n.Name)
	}
	for _, c := range []struct {
		table string
		want  []string
	}{{"Logical_Switch", switches}, {"Logical_Router", routers}} {
		got := strings.Fields(lab(t, "nbctl", "--bare", "--columns=name", "list", c.table))
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.table, got, c.want)
		}
	}
	chassis := strings.Fields(lab(t, "sbctl", "--bare", "--columns=hostname", "list", "Chassis"))
	if len(chassis) != len(p.Machines) {
		t.Errorf("chassis of %q, want one of each of %d nodes", chassis, len(p.Machines))
	}
	for _, n := range p.Machines {
		if _, err := on(t, n.Name, "test", "-e", "/run/ovn/ovnnb_db.sock"); (err == nil) != slices.Contains(p.DatabaseServers(), n.IPs()[0]) {
			t.Errorf("%s serves a database: %v", n.Name, err == nil)
		}
	}
}

// TestGlobalPlainTCP tries both databases without a certificate, from a node and from
// outside of the cluster.
func TestGlobalPlainTCP(t *testing.T) {
	onlyGlobal(t, 0)
	p := layout(t)
	for tool, port := range map[string]string{"ovn-nbctl": "6641", "ovn-sbctl": "6642"} {
		out, err := on(t, "ovn-worker", tool, "--timeout=3", "--no-leader-only", "--db=tcp:"+p.DatabaseServers()[0].String()+":"+port, "show")
		if (err == nil) != p.Insecure {
			t.Errorf("%s over plain TCP, insecure databases %v: %v %.200s", tool, p.Insecure, err, out)
		}
	}
}

// nbSize is how long the northbound database's file is: every transaction that
// changes something makes it longer.
func nbSize(t testing.TB) string {
	t.Helper()
	out, err := on(t, "ovn-control-plane", "stat", "-c", "%s", "/var/lib/portolan/central/ovnnb_db.db")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// standing is what a controller says of itself on a node; "" where there is none.
func standing(t testing.TB, host string) string {
	t.Helper()
	out, err := on(t, host, "curl", "-sf", "http://127.0.0.1:9412/status")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(out, "\n")
	return first
}

// writer is the node whose controller holds the lock.
func writer(t testing.TB) string {
	t.Helper()
	found := ""
	eventually(t, time.Minute, "a controller that writes", func() (string, bool) {
		var said []string
		for _, n := range layout(t).Machines {
			s := standing(t, n.Name)
			if s == "writes" {
				found = n.Name
			}
			said = append(said, n.Name+": "+s)
		}
		return strings.Join(said, ", "), found != ""
	})
	return found
}

// TestGlobalControllerRestart kills the controller: the next one finds everything as
// it should be and writes nothing; and the annotation that brings a pod's address to
// it is set back when somebody edits it.
func TestGlobalControllerRestart(t *testing.T) {
	onlyGlobal(t, 1)
	under(t, "controller killed", func(t *testing.T) {
		before := nbSize(t)
		kill(t, writer(t), "portolan-controller", "--health-bind")
		writer(t)
		if after := nbSize(t); after != before {
			t.Errorf("the restart made the northbound database's file go from %s to %s bytes: something was written", before, after)
		}
	})
	apply(t, podManifest("edited", victim))
	addr := ready(t)["edited"].Addr
	kubectl(t, "-n", namespace, "annotate", "pod", "edited", "--overwrite",
		`k8s.ovn.org/pod-networks={"default":{"ip_addresses":["10.244.0.1/24"],"mac_address":"0a:58:0a:f4:00:01"}}`)
	eventually(t, 20*time.Second, "the edited annotation set back", func() (string, bool) {
		text := kubectl(t, "-n", namespace, "get", "pod", "edited", "-o", `jsonpath={.metadata.annotations.k8s\.ovn\.org/pod-networks}`)
		port := lab(t, "nbctl", "--bare", "--columns=addresses", "find", "Logical_Switch_Port", "name="+namespace+"_edited")
		return text + " " + port, strings.Contains(text, addr.String()+"/") && strings.Contains(port, addr.String())
	})
}

// TestGlobalDatabaseRestart kills each of the central daemons where there is one of each.
func TestGlobalDatabaseRestart(t *testing.T) {
	onlyGlobal(t, 1)
	for _, words := range [][]string{
		{"ovsdb-server", "central/ovnnb_db.db"}, {"ovsdb-server", "central/ovnsb_db.db"}, {"ovn-northd"},
	} {
		name := words[len(words)-1]
		t.Run(name, func(t *testing.T) {
			under(t, name, func(t *testing.T) { kill(t, "ovn-control-plane", words...) })
		})
	}
}

// member is one server of a clustered database.
type member struct {
	host, file, ctl, db string
}

// role asks a server for its part; "" when it does not answer.
func (m member) status(t testing.TB) string {
	t.Helper()
	out, err := on(t, m.host, "ovn-appctl", "--timeout=5", "-t", m.ctl, "cluster/status", m.db)
	if err != nil {
		return ""
	}
	return out
}

// pick finds the leader of a database, or a follower, once all three are members.
func pick(t testing.TB, name, role string) member {
	t.Helper()
	long := map[string]string{"nb": "OVN_Northbound", "sb": "OVN_Southbound"}[name]
	var found member
	eventually(t, 90*time.Second, "three members of "+long, func() (string, bool) {
		var said []string
		members := 0
		for _, n := range layout(t).Machines[:3] {
			m := member{n.Name, "central/ovn" + name + "_db.db", "/run/ovn/ovn" + name + "_db.ctl", long}
			s := m.status(t)
			said = append(said, n.Name+":\n"+s)
			if strings.Contains(s, "Status: cluster member") && strings.Count(s, " at ssl:")+strings.Count(s, " at tcp:") == 3 {
				members++
			}
			if strings.Contains(s, "Role: "+role) {
				found = m
			}
		}
		return strings.Join(said, "\n"), members == 3 && found.host != ""
	})
	return found
}

// TestGlobalRaft kills one server of three, a follower and the leader, of each
// database: nothing is lost, a pod can be made meanwhile, and the server comes back
// as a member.
func TestGlobalRaft(t *testing.T) {
	onlyGlobal(t, 3)
	for _, db := range []string{"nb", "sb"} {
		for _, role := range []string{"follower", "leader"} {
			t.Run(db+"-"+role, func(t *testing.T) {
				m := pick(t, db, role)
				under(t, fmt.Sprintf("%s %s on %s killed", db, role, m.host), func(t *testing.T) { kill(t, m.host, "ovsdb-server", m.file) })
				pick(t, db, "leader")
			})
		}
	}
	t.Run("disk-lost", func(t *testing.T) {
		m := pick(t, "nb", "follower")
		under(t, "nb on "+m.host+" killed, its file lost", func(t *testing.T) {
			if _, err := on(t, m.host, "rm", "/var/lib/portolan/"+m.file); err != nil {
				t.Fatal(err)
			}
			kill(t, m.host, "ovsdb-server", m.file)
		})
		pick(t, "nb", "leader") // and three members: not the one that it was
	})
}

// TestGlobalControllerFailover kills the controller that holds the lock: the other
// takes it, and a pod is made by that one.
func TestGlobalControllerFailover(t *testing.T) {
	onlyGlobal(t, 3)
	first := writer(t)
	under(t, "controller that writes killed", func(t *testing.T) {
		kill(t, first, "portolan-controller", "--health-bind")
		if second := writer(t); second == first {
			t.Errorf("%s writes again: the one that stood by should have taken the lock", first)
		}
	})
	var writers []string
	for _, n := range layout(t).Machines {
		if standing(t, n.Name) == "writes" {
			writers = append(writers, n.Name)
		}
	}
	if len(writers) != 1 {
		t.Errorf("controllers that write: %q, want one", writers)
	}
}
