package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

func TestClusterCertificatesVerify(t *testing.T) {
	dir := t.TempDir()
	p := plan.Of(plan.Options{Nodes: 2, Zone: "node", Families: plan.Dual, CNI: plan.NoCNI})
	if err := WriteCluster(dir, p); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for file, names := range map[string][]string{
		"apiserver":  {"172.18.0.3", "fc00:f853:ccd:e793::3", "127.0.0.1", "10.96.0.1", "fd00:10:96::1", "kubernetes.default.svc"},
		"ovn-worker": {"172.18.0.2", "ovn-worker"},
		"admin":      {""},
	} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if err != nil {
				t.Errorf("%s as %q: %v", file, name, err)
			}
		}
	}
}

func TestKubeconfigPointsAtTheControlPlane(t *testing.T) {
	for families, want := range map[string]string{plan.IPv4: "https://172.18.0.3:6443", plan.IPv6: "https://[fc00:f853:ccd:e793::3]:6443"} {
		dir := t.TempDir()
		if err := WriteCluster(dir, plan.Of(plan.Options{Nodes: 1, Zone: "node", Families: families, CNI: plan.NoCNI})); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "admin.conf"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), want) {
			t.Errorf("%s: no %s in\n%s", families, want, b)
		}
	}
}
