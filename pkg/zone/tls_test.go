package zone_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/pki"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// places are the certificates of a zone as pods have them mounted.
type places struct {
	t                    *testing.T
	dir                  string
	central, nodes       *pki.Authority
	server, client, node zone.Files
}

func newPlaces(t *testing.T, life time.Duration) places {
	t.Helper()
	p := places{t: t, dir: t.TempDir()}
	var err error
	if p.central, err = pki.NewAuthority("central", time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if p.nodes, err = pki.NewAuthority("nodes", time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	local := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	p.server = p.issue("server", p.central, pki.Request{Name: "server", Addresses: local, Life: life})
	p.client = p.issue("client", p.central, pki.Request{Name: "client", Life: life})
	p.node = p.issue("node", p.nodes, pki.Request{Name: "node", Life: life})
	return p
}

// issue writes a directory, each file by a rename as kubelet does.
func (p places) issue(name string, by *pki.Authority, r pki.Request) zone.Files {
	p.t.Helper()
	pair, err := by.Issue(r, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	dir := filepath.Join(p.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	for file, text := range map[string][]byte{
		zone.CertFile: pair.Cert, zone.KeyFile: pair.Key,
		zone.AuthorityFile: pki.Bundle(p.central), zone.EveryoneFile: pki.Bundle(p.central, p.nodes),
	} {
		half := filepath.Join(dir, ".half")
		if err := os.WriteFile(half, text, 0o600); err != nil {
			p.t.Fatal(err)
		}
		if err := os.Rename(half, filepath.Join(dir, file)); err != nil {
			p.t.Fatal(err)
		}
	}
	return zone.Files(dir)
}

// serve starts a database's server as daemons do, and says where.
func (p places) serve(db rows.DB, schema string, files zone.Files) string {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	host, port, _ := net.SplitHostPort(address)
	ovsdbtest.StartServer(p.t, ovsdbtest.Schema(schema), append(files.ServerFlags(db), "--remote=pssl:"+port+":"+host)...)
	return address
}

// reach connects with a directory's certificate.
func (p places) reach(db rows.DB, endpoint string, files zone.Files) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
	defer cancel()
	c, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db, Endpoint: endpoint, TLS: files.Config})
	if err == nil {
		c.Close()
	}
	return err
}

// ask connects with OVS's own tool, which checks as ovn-controller does.
func (p places) ask(database, endpoint string, files zone.Files) error {
	args := append(files.Flags(), "--timeout=1", "get-schema-version", endpoint, database)
	out, err := ovsdbtest.Command("ovsdb-client", args...).CombinedOutput()
	if err != nil {
		p.t.Logf("ovsdb-client to %s: %s", endpoint, strings.TrimSpace(string(out)))
	}
	return err
}

func TestWhoMayComeToWhichDatabase(t *testing.T) {
	p := newPlaces(t, time.Hour)
	nb, sb := p.serve(rows.NB, "ovn-nb", p.server), p.serve(rows.SB, "ovn-sb", p.server)
	stranger := newPlaces(t, time.Hour).client
	for _, c := range []struct {
		who      string
		files    zone.Files
		db       rows.DB
		endpoint string
		admitted bool
	}{
		{"the controller to NB", p.client, rows.NB, "ssl:" + nb, true},
		{"northd to SB", p.client, rows.SB, "ssl:" + sb, true},
		{"a node to SB", p.node, rows.SB, "ssl:" + sb, true},
		{"a node to NB", p.node, rows.NB, "ssl:" + nb, false},
		{"a stranger to NB", stranger, rows.NB, "ssl:" + nb, false},
		{"a stranger to SB", stranger, rows.SB, "ssl:" + sb, false},
		{"plain TCP to NB", p.client, rows.NB, "tcp:" + nb, false},
		{"plain TCP to SB", p.client, rows.SB, "tcp:" + sb, false},
	} {
		if err := p.reach(c.db, c.endpoint, c.files); (err == nil) != c.admitted {
			t.Errorf("%s: %v, want admitted: %v", c.who, err, c.admitted)
		}
		name := map[rows.DB]string{rows.NB: "OVN_Northbound", rows.SB: "OVN_Southbound"}[c.db]
		if err := p.ask(name, c.endpoint, c.files); (err == nil) != c.admitted {
			t.Errorf("%s, by ovsdb-client: %v, want admitted: %v", c.who, err, c.admitted)
		}
	}
}

// TestANodeCannotPlayTheDatabase serves SB with the controller's certificate, which
// is of the right authority but for clients: nobody takes it for the database.
func TestANodeCannotPlayTheDatabase(t *testing.T) {
	p := newPlaces(t, time.Hour)
	fake := p.serve(rows.SB, "ovn-sb", p.client)
	if err := p.reach(rows.SB, "ssl:"+fake, p.node); err == nil {
		t.Error("our connection takes a client's certificate for a server's")
	}
	if err := p.ask("OVN_Southbound", "ssl:"+fake, p.node); err == nil {
		t.Error("OVS takes a client's certificate for a server's")
	}
}

// TestRenewalNeedsNoRestart lets certificates of three seconds run out after new
// ones have taken their place: server and clients go on with those.
func TestRenewalNeedsNoRestart(t *testing.T) {
	const life = 3 * time.Second
	began := time.Now()
	p := newPlaces(t, life)
	nb := p.serve(rows.NB, "ovn-nb", p.server)
	if err := p.reach(rows.NB, "ssl:"+nb, p.client); err != nil {
		t.Fatal(err)
	}
	p.issue("client", p.central, pki.Request{Name: "client", Life: time.Hour})
	<-time.After(life + 1100*time.Millisecond - time.Since(began)) // certificates count whole seconds
	if err := p.reach(rows.NB, "ssl:"+nb, p.client); err == nil {
		t.Fatal("the server's certificate has run out, and is still believed")
	}
	p.issue("server", p.central, pki.Request{Name: "server", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Life: time.Hour})
	if err := p.reach(rows.NB, "ssl:"+nb, p.client); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	if err := p.ask("OVN_Northbound", "ssl:"+nb, p.client); err != nil {
		t.Errorf("after the renewal, by ovsdb-client: %v", err)
	}
}
