// Package pki makes the certificates by which the databases of a global zone and
// their clients know each other. It is arithmetic on keys: the time is told, and
// nothing is read, written or remembered.
//
//	Authority ── Issue(Request) ──> Pair{certificate, key}
//	Due(certificate, Request) ──> must it be issued again?
//
// OpenSSL holds a certificate to its purpose: one for clients alone cannot play a
// server, so who steals a node's cannot play the database to other nodes.
package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"
)

// skew is how far behind a node's clock may be.
const skew = time.Hour

// Pair is a certificate and its key, each as PEM.
type Pair struct {
	Cert []byte
	Key  []byte
}

// Authority signs certificates.
type Authority struct {
	Pair
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one that is valid for life.
func NewAuthority(name string, now time.Time, life time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key of authority %s: %w", name, err)
	}
	t, err := template(name, now, life)
	if err != nil {
		return nil, err
	}
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	pair, err := sign(t, t, key, key)
	if err != nil {
		return nil, fmt.Errorf("authority %s: %w", name, err)
	}
	return ParseAuthority(pair)
}

// ParseAuthority takes one up that was made before.
func ParseAuthority(p Pair) (*Authority, error) {
	cert, err := parse(p.Cert)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, errors.New("authority's key: no PEM block")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("authority's key: %w", err)
	}
	if !cert.IsCA || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("authority: the certificate is no authority's, or the key is another's")
	}
	return &Authority{Pair: p, cert: cert, key: key}, nil
}

// Request says what a certificate is for.
type Request struct {
	Name      string       // its common name
	Addresses []netip.Addr // of a server; nil: for clients alone
	Life      time.Duration
}

// Issue makes a key and signs its certificate.
func (a *Authority) Issue(r Request, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("key of %s: %w", r.Name, err)
	}
	t, err := template(r.Name, now, r.Life)
	if err != nil {
		return Pair{}, err
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if r.Addresses != nil {
		// The servers of a cluster are each other's clients.
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, addr := range r.Addresses {
		t.IPAddresses = append(t.IPAddresses, addr.AsSlice())
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	return sign(t, a.cert, key, a.key)
}

// Due reports whether a certificate must be issued anew: it is not what is asked
// for, not this authority's, or less than a third of its life is left.
func (a *Authority) Due(p Pair, r Request, now time.Time) bool {
	cert, err := parse(p.Cert)
	if err != nil || len(p.Key) == 0 || cert.CheckSignatureFrom(a.cert) != nil || cert.Subject.CommonName != r.Name {
		return true
	}
	var have []netip.Addr
	for _, ip := range cert.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			have = append(have, addr.Unmap())
		}
	}
	server := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	if !slices.Equal(have, r.Addresses) || server != (r.Addresses != nil) {
		return true
	}
	return now.Before(cert.NotBefore) || cert.NotAfter.Sub(now) < r.Life/3
}

// Expired reports whether an authority is of no use any more.
func (a *Authority) Expired(now time.Time) bool { return now.After(a.cert.NotAfter) }

// Bundle is the certificates of several authorities in one file.
func Bundle(as ...*Authority) []byte {
	var parts [][]byte
	for _, a := range as {
		parts = append(parts, a.Cert)
	}
	return bytes.Join(parts, nil)
}

func template(name string, now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("serial number of %s: %w", name, err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{"portolan"}},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
	}, nil
}

// sign makes the certificate of key by the parent's key.
func sign(t, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, by)
	if err != nil {
		return Pair{}, err
	}
	text, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: text}),
	}, nil
}

func parse(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}
