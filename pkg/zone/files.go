package zone

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// Files is a directory with a certificate and what goes with it, named as in a
// mounted Secret of type kubernetes.io/tls. "" is none: plain TCP.
type Files string

// DefaultFiles is where deploy/ mounts them.
const DefaultFiles Files = "/etc/portolan-tls"

// The names of the files.
const (
	CertFile      = "tls.crt"
	KeyFile       = "tls.key"
	AuthorityFile = "ca.crt" // of those who are met, not of the own certificate
	// EveryoneFile has the authority of nodes besides: the SB database's servers
	// admit nodes, nobody else does.
	EveryoneFile = "ca-nodes.crt"
)

// Flags are the options of OVS's and OVN's daemons and tools. The daemons read
// the files again when they change.
func (f Files) Flags() []string { return f.flags(AuthorityFile) }

// ServerFlags are those of the servers of a database: nodes may come to SB only.
func (f Files) ServerFlags(db rows.DB) []string {
	if db == rows.SB {
		return f.flags(EveryoneFile)
	}
	return f.flags(AuthorityFile)
}

func (f Files) flags(authority string) []string {
	if f == "" {
		return nil
	}
	dir := string(f)
	return []string{
		"--private-key=" + filepath.Join(dir, KeyFile), "--certificate=" + filepath.Join(dir, CertFile),
		"--ca-cert=" + filepath.Join(dir, authority),
	}
}

// Config reads the files. It is called for each new connection, so a certificate
// that was replaced is used from the next one on.
func (f Files) Config() (*tls.Config, error) {
	dir := string(f)
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("certificate for the databases: %w", err)
	}
	authority, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil {
		return nil, fmt.Errorf("authority of the databases: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("authority of the databases: %s holds no certificate", filepath.Join(dir, AuthorityFile))
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}
