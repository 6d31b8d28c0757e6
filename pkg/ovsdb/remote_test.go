package ovsdb

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func TestClusterIsReachedByItsLeader(t *testing.T) {
	servers := ovsdbtest.StartCluster(t, ovsdbtest.Schema("ovn-nb"), "OVN_Northbound", 3)
	var endpoints []string
	for _, s := range servers {
		endpoints = append(endpoints, s.Endpoint)
	}
	// The first server made the cluster, so it leads; it is the last to be asked.
	list := strings.Join([]string{endpoints[1], endpoints[2], endpoints[0]}, ",")
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: list, Lock: true, Probe: time.Second})
	mustCommit(t, c, switchGroup("a", "s1"))
	epoch := c.State().Epoch
	servers[0].Kill()
	until(t, c, "another leader", func(st State) bool { return st.Epoch > epoch && st.Up })
	snap := snapshot(t, c)
	find(t, snap, switchRef("s1"))
	mustCommit(t, c, switchGroup("b", "s2"))
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert := certificate(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	host, port, _ := net.SplitHostPort(address)
	file := func(name string) string { return filepath.Join(dir, name) }
	ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-nb"), "--remote=pssl:"+port+":"+host,
		"--private-key="+file("key.pem"), "--certificate="+file("cert.pem"), "--ca-cert="+file("cert.pem"))
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "portolan-db", MinVersion: tls.VersionTLS12}
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: "ssl:" + address, TLS: func() (*tls.Config, error) { return config, nil }, Lock: true})
	mustCommit(t, c, switchGroup("a", "s"))
}

// certificate makes a key and a certificate that signs itself, as files and as a value.
func certificate(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "portolan-db"}, DNSNames: []string{"portolan-db"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for name, text := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
