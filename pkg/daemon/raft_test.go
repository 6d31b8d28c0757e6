package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// trio is three servers of one database, by the addresses they would have.
type trio struct {
	t     *testing.T
	dir   string
	addrs []netip.Addr

	mu      sync.Mutex // guards what follows
	servers map[netip.Addr]*ovsdbtest.Server
}

func newTrio(t *testing.T) *trio {
	// Sockets in a directory of a short name, for sun_path's sake.
	dir, err := os.MkdirTemp("", "raft")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tr := &trio{t: t, dir: dir, servers: map[netip.Addr]*ovsdbtest.Server{}}
	for _, s := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		tr.addrs = append(tr.addrs, netip.MustParseAddr(s))
	}
	return tr
}

func (tr *trio) member(self netip.Addr, path string) Member {
	return Member{
		File: File{Path: path, Schema: ovsdbtest.Schema("ovn-nb")}, Database: ovsdb.Name(rows.NB), Self: self, Servers: tr.addrs,
		Raft:    func(a netip.Addr) string { return "unix:" + filepath.Join(tr.dir, a.String()) },
		Cluster: tr.cluster, Logger: slog.New(slog.DiscardHandler),
	}
}

func (tr *trio) cluster(ctx context.Context, server netip.Addr) (string, error) {
	tr.mu.Lock()
	s := tr.servers[server]
	tr.mu.Unlock()
	if s == nil {
		return "", errors.New("not started")
	}
	return ovsdb.ClusterID(ctx, ovsdb.Config{DB: rows.NB, Endpoint: s.Endpoint})
}

// start makes a server's file and serves it; several may be started at once.
func (tr *trio) start(self netip.Addr) *ovsdbtest.Server {
	s := ovsdbtest.ServeFile(tr.t, func(path string) {
		ctx, cancel := context.WithTimeout(tr.t.Context(), 30*time.Second)
		defer cancel()
		if err := tr.member(self, path).Make(ctx, testTool); err != nil {
			tr.t.Errorf("%s: %v", self, err)
		}
	})
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.servers[self] = s
	return s
}

// ids waits until all servers are in a cluster, and returns which.
func (tr *trio) ids() map[string]bool {
	tr.t.Helper()
	out := map[string]bool{}
	for _, a := range tr.addrs {
		ovsdbtest.Run(tr.t, "ovsdb-client", "--timeout=30", "wait", tr.servers[a].Endpoint, ovsdb.Name(rows.NB), "connected")
		id, err := tr.cluster(tr.t.Context(), a)
		if err != nil || id == "" {
			tr.t.Fatalf("%s: cluster %q, %v", a, id, err)
		}
		out[id] = true
	}
	return out
}

// TestThreeServersFoundOneCluster starts all at once; then the founder loses its
// disk, and must join what the others have instead of founding another.
func TestThreeServersFoundOneCluster(t *testing.T) {
	tr := newTrio(t)
	var wg sync.WaitGroup
	for _, a := range tr.addrs {
		wg.Go(func() { tr.start(a) })
	}
	wg.Wait()
	first := tr.ids()
	if len(first) != 1 {
		t.Fatalf("clusters %v, want one", first)
	}
	for _, a := range tr.addrs { // a restart: the file stays as it is
		s := tr.servers[a]
		before := s.Save()
		s.Kill()
		if err := tr.member(a, s.Path()).Make(t.Context(), testTool); err != nil {
			t.Fatal(err)
		}
		if string(s.Save()[:len(before)]) != string(before) {
			t.Errorf("%s: the file was changed by a restart", a)
		}
		s.Start()
	}
	tr.ids()
	tr.servers[tr.addrs[0]].Kill()
	tr.start(tr.addrs[0])
	for id := range tr.ids() {
		if !first[id] {
			t.Errorf("after the founder lost its disk there is a cluster %s besides %v", id, first)
		}
	}
	tr.tidied(tr.addrs[0])
}

// tidied lets a server that has joined anew remove what it was, and looks at every
// server's list.
func (tr *trio) tidied(self netip.Addr) {
	tr.t.Helper()
	s := tr.servers[self]
	appctl := func(args ...string) (string, error) {
		out, err := ovsdbtest.Command("ovs-appctl", args...).CombinedOutput()
		return string(out), err
	}
	ctl := filepath.Join(s.Dir, "ctl.sock")
	m := tr.member(self, s.Path())
	for range 2 { // a second time there is nothing to do
		if err := m.Tidy(tr.t.Context(), ctl, appctl); err != nil {
			tr.t.Fatal(err)
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		status, err := appctl("-t", ctl, "cluster/status", m.Database)
		n := len(memberLine.FindAllString(status, -1))
		if err == nil && n == 3 {
			return
		}
		if time.Now().After(deadline) {
			tr.t.Fatalf("%d members, want three: %v\n%s", n, err, status)
		}
		<-time.After(100 * time.Millisecond)
	}
}

func TestFormerMembersAreThoseOfOnesOwnAddress(t *testing.T) {
	const status = `r
Name: OVN_Northbound
Status: cluster member
Servers:
    8eda (8eda at ssl:192.0.2.1:6643) (self) next_index=2 match_index=5
    3817 (3817 at ssl:192.0.2.1:6643) next_index=6 match_index=4 last msg 5450 ms ago
    863d (863d at ssl:192.0.2.2:6643) last msg 188 ms ago
`
	if got := former(status, "ssl:192.0.2.1:6643"); len(got) != 1 || got[0] != "3817" {
		t.Errorf("%q, want 3817", got)
	}
	if got := former(status, "ssl:192.0.2.2:6643"); len(got) != 1 || got[0] != "863d" {
		t.Errorf("%q: another's address", got)
	}
}

// TestAFounderWaitsForAMajority has nobody to ask: it must not found a cluster that
// may be the second.
func TestAFounderWaitsForAMajority(t *testing.T) {
	tr := newTrio(t)
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	path := filepath.Join(tr.dir, "db")
	if err := tr.member(tr.addrs[0], path).Make(ctx, testTool); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("alone: %v, want that it waits", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it has made a file")
	}
}

// TestAFileOfAnotherKindIsPutAside goes from one server to three.
func TestAFileOfAnotherKindIsPutAside(t *testing.T) {
	tr := newTrio(t)
	path := filepath.Join(tr.dir, "db")
	if err := (File{path, ovsdbtest.Schema("ovn-nb")}).Make(testTool); err != nil {
		t.Fatal(err)
	}
	if err := tr.member(tr.addrs[1], path).Make(t.Context(), testTool); err != nil {
		t.Fatal(err)
	}
	head, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(head), clusteredMagic) {
		t.Errorf("%.20q, %v; want a server's file of a cluster", head, err)
	}
	if _, err := os.Stat(path + ".aside"); err != nil {
		t.Error(err)
	}
}
