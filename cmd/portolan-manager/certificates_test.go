package main

import (
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// issuing is an issuer with a clock of its own.
type issuing struct {
	*issuer
	t      *testing.T
	client *fake.Clientset
	clock  time.Time
}

func newIssuing(t *testing.T) *issuing {
	i := &issuing{t: t, client: fake.NewClientset(), clock: time.Unix(1.8e9, 0)}
	i.issuer = &issuer{
		client: i.client, namespace: "portolan", servers: []netip.Addr{netip.MustParseAddr("172.18.0.3")},
		life: 90 * time.Minute, log: slog.New(slog.DiscardHandler), now: func() time.Time { return i.clock },
	}
	return i
}

// writes does one round and counts what it wrote.
func (i *issuing) writes() (n int) {
	i.t.Helper()
	i.client.ClearActions()
	if err := i.round(i.t.Context()); err != nil {
		i.t.Fatal(err)
	}
	for _, a := range i.client.Actions() {
		if a.GetVerb() != "get" {
			n++
		}
	}
	return n
}

func (i *issuing) secret(name string) *corev1.Secret {
	i.t.Helper()
	s, err := i.client.CoreV1().Secrets("portolan").Get(i.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		i.t.Fatal(err)
	}
	return s
}

func TestCertificatesAreIssuedOnceAndRenewedInTime(t *testing.T) {
	i := newIssuing(t)
	if n := i.writes(); n != 4 {
		t.Fatalf("first round: %d writes, want the authorities and three certificates", n)
	}
	if n := i.writes(); n != 0 {
		t.Fatalf("second round: %d writes, want none", n)
	}
	i.clock = i.clock.Add(59 * time.Minute)
	if n := i.writes(); n != 0 {
		t.Fatalf("31 of 90 minutes left: %d writes, want none", n)
	}
	i.clock = i.clock.Add(2 * time.Minute)
	if n := i.writes(); n != 3 {
		t.Fatalf("29 of 90 minutes left: %d writes, want three certificates", n)
	}
	if n := i.writes(); n != 0 {
		t.Fatalf("after the renewal: %d writes, want none", n)
	}
}

func TestCertificatesFollowServersAndAuthorities(t *testing.T) {
	i := newIssuing(t)
	i.writes()
	i.servers = append(i.servers, netip.MustParseAddr("fd00::4"))
	if n := i.writes(); n != 1 {
		t.Errorf("another server: %d writes, want one: the servers' certificate", n)
	}
	if err := i.client.CoreV1().Secrets("portolan").Delete(t.Context(), authoritySecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := i.writes(); n != 4 {
		t.Errorf("new authorities: %d writes, want all four", n)
	}
	if err := i.client.CoreV1().Secrets("portolan").Delete(t.Context(), nodeSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := i.writes(); n != 1 {
		t.Errorf("a Secret removed: %d writes, want one", n)
	}
}

// TestNodesAreApart checks who trusts whom: the databases' servers alone admit
// nodes, by a file that only SB's server is given, and no key of an authority is
// in a Secret that a pod mounts.
func TestNodesAreApart(t *testing.T) {
	i := newIssuing(t)
	i.writes()
	node := leaf(t, i.secret(nodeSecret).Data["tls.crt"])
	for secret, files := range map[string]map[string]bool{
		serverSecret:     {"ca.crt": false, "ca-nodes.crt": true},
		controllerSecret: {"ca.crt": false},
		nodeSecret:       {"ca.crt": false},
	} {
		s := i.secret(secret)
		for file, admits := range files {
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(s.Data[file]) {
				t.Fatalf("%s %s holds no certificate", secret, file)
			}
			_, err := node.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: i.clock, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if (err == nil) != admits {
				t.Errorf("%s %s admits nodes: %v, want %v", secret, file, err == nil, admits)
			}
		}
		if len(s.Data) != len(files)+2 {
			t.Errorf("%s holds more than its certificate, key and authorities: %d files", secret, len(s.Data))
		}
	}
}

func leaf(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
