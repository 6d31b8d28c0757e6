// Package v1 is the part of OVN-Kubernetes' API k8s.ovn.org/v1 that Portolan serves:
// UserDefinedNetwork and ClusterUserDefinedNetwork, with the same fields, defaults and
// conditions, so that manifests written for it work here. What Portolan has not (a
// primary role) passes the schema and is refused in a condition.
//
// +kubebuilder:object:generate=false
// +groupName=k8s.ovn.org
// +versionName=v1
package v1
