package ovsdbtest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

func TestTraceFollowsNorthd(t *testing.T) {
	o := ovsdbtest.Start(t)
	o.Nbctl("ls-add", "s", "--", "lsp-add", "s", "a", "--", "lsp-add", "s", "b",
		"--", "lsp-set-addresses", "a", "0a:00:00:00:00:01", "--", "lsp-set-addresses", "b", "0a:00:00:00:00:02")
	flow := `inport=="a" && eth.src==0a:00:00:00:00:01 && eth.dst==0a:00:00:00:00:02`
	if out := o.Trace("s", flow); !strings.Contains(out, `output to "b"`) {
		t.Fatalf("the packet did not arrive:\n%s", out)
	}
	o.Nbctl("acl-add", "s", "to-lport", "1000", `outport=="b"`, "drop")
	if out := o.Trace("s", flow); strings.Contains(out, `output to "b"`) {
		t.Fatalf("the packet passed a drop:\n%s", out)
	}
	o.KillNorthd()
	o.Nbctl("acl-del", "s")
	o.StartNorthd()
	if out := o.Trace("s", flow); !strings.Contains(out, `output to "b"`) {
		t.Fatalf("northd did not catch up:\n%s", out)
	}
}

func TestVswitchd(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a network namespace of one's own needs root")
	}
	o := ovsdbtest.StartOVS(t, true)
	o.Vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
	if out := o.Vsctl("get", "interface", "br0", "ofport"); strings.TrimSpace(out) != "65534" {
		t.Fatalf("ofport of br0 is %s", out)
	}
}

func TestServerKeepsItsDatabaseThroughKill(t *testing.T) {
	s := ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-nb"))
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch","row":{"name":"s"}}`)
	backup := s.Save()
	s.Kill()
	s.Start()
	if got := s.Dump("OVN_Northbound", "Logical_Switch", "name"); got != "s\n" {
		t.Fatalf("found %q after a kill", got)
	}
	s.Wipe()
	if got := s.Dump("OVN_Northbound", "Logical_Switch", "name"); got != "" {
		t.Fatalf("found %q after a wipe", got)
	}
	s.Restore(backup)
	if got := s.Dump("OVN_Northbound", "Logical_Switch", "name"); got != "s\n" {
		t.Fatalf("found %q after a restore", got)
	}
}
