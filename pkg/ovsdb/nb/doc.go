// Package nb holds the Go models of the OVN_Northbound database: what an operator or a CNI wants of the logical network.
// libovsdb's modelgen makes everything but this file from ovn-nb.ovsschema;
// nothing is written by hand, and a newer schema is a new run.
package nb
