// Package vswitch holds the Go models of the Open_vSwitch database: a node's bridges, ports and interfaces.
// libovsdb's modelgen makes everything but this file from vswitch.ovsschema;
// nothing is written by hand, and a newer schema is a new run.
package vswitch
