// Package v1alpha1 holds the Go types of the API group portolan.io/v1alpha1.
//
// Cluster is read from files: the configuration file of every
// process, directories given by --intent-dir, and scripts. The other kinds are served by
// the API server; `make generate` writes their CustomResourceDefinitions into deploy/
// from the markers here.
//
// +groupName=portolan.io
package v1alpha1

// Group and version, as they stand in apiVersion.
const (
	Group      = "portolan.io"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version
)
