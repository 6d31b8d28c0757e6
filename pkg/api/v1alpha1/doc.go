// Package v1alpha1 holds the Go types of the API group portolan.io/v1alpha1.
//
// Cluster and Network are read from files so far: the configuration file of
// every process, directories given by --intent-dir, and scripts.
package v1alpha1

// Group and version, as they stand in apiVersion.
const (
	Group      = "portolan.io"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version
)
