// Package apiserver asks a real kube-apiserver what the manifests of deploy/ make of
// it: which writes the admission policies refuse, and by which words; whether rights
// suffice for what portolan-manager and the agents do; what kubectl shows.
//
//	test ──> process with a network namespace of its own: etcd, kube-apiserver
//	          └─ kubectl apply -k deploy/base, then each test as who it is about
//
// There is no node, no kubelet and no controller-manager: nothing runs, and what
// pods and nodes there are, a test has made.
package apiserver
