// Package sb holds the Go models of the OVN_Southbound database: what northd made of it, and what chassis say.
// libovsdb's modelgen makes everything but this file from ovn-sb.ovsschema;
// nothing is written by hand, and a newer schema is a new run.
package sb
