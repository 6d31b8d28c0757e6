package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

func TestParseRequestRefuses(t *testing.T) {
	good := wire.Call{Command: wire.Add, ContainerID: "c1", Netns: "/run/netns/x", IfName: "eth0",
		Args: "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", Config: []byte(`{"cniVersion":"1.0.0"}`)}
	if _, err := ParseRequest(&good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*wire.Call)
		code   uint
	}{
		"no netns":       {func(c *wire.Call) { c.Netns = "" }, wire.CodeEnvironment},
		"relative netns": {func(c *wire.Call) { c.Netns = "../x" }, wire.CodeEnvironment},
		"no container":   {func(c *wire.Call) { c.ContainerID = "" }, wire.CodeEnvironment},
		"odd container":  {func(c *wire.Call) { c.ContainerID = "a/b" }, wire.CodeEnvironment},
		"long interface": {func(c *wire.Call) { c.IfName = strings.Repeat("e", 16) }, wire.CodeEnvironment},
		"path interface": {func(c *wire.Call) { c.IfName = "a/b" }, wire.CodeEnvironment},
		"no pod":         {func(c *wire.Call) { c.Args = "IgnoreUnknown=1" }, wire.CodeEnvironment},
		"odd args":       {func(c *wire.Call) { c.Args = "K8S_POD_NAME" }, wire.CodeEnvironment},
		"odd pod":        {func(c *wire.Call) { c.Args = "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b c" }, wire.CodeEnvironment},
		"old version":    {func(c *wire.Call) { c.Config = []byte(`{"cniVersion":"0.2.0"}`) }, wire.CodeVersion},
		"no JSON":        {func(c *wire.Call) { c.Config = []byte(`{`) }, wire.CodeDecode},
		"no config":      {func(c *wire.Call) { c.Config = nil }, wire.CodeDecode},
		"unknown":        {func(c *wire.Call) { c.Command = "FROB" }, wire.CodeEnvironment},
		"GC of nothing":  {func(c *wire.Call) { c.Command = wire.GC }, wire.CodeConfig},
	} {
		call := good
		c.change(&call)
		_, err := ParseRequest(&call)
		var e *wire.Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: %v, want code %d", name, err, c.code)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add("ADD", "c1", "/run/netns/x", "eth0", "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=u", []byte(`{"cniVersion":"1.0.0"}`))
	f.Add("GC", "", "", "", "", []byte(`{"cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}`))
	f.Add("DEL", "c1", "", "eth0", ";;=;", []byte(`{"cniVersion":"0.4.0","prevResult":{}}`))
	f.Add("CHECK", "c1", "/x\x00", "..", "A", []byte(`null`))
	f.Fuzz(func(t *testing.T, command, id, netns, ifName, args string, config []byte) {
		r, err := ParseRequest(&wire.Call{Command: command, ContainerID: id, Netns: netns, IfName: ifName, Args: args, Config: config})
		if err != nil {
			var e *wire.Error
			if !errors.As(err, &e) || e.Code == 0 || e.Msg == "" {
				t.Fatalf("an error that no runtime understands: %v", err)
			}
			return
		}
		// What is accepted ends up in OVSDB records, device aliases and paths.
		for _, s := range []string{r.ContainerID, r.IfName, r.Args.Namespace, r.Args.Name, r.Args.UID} {
			if strings.ContainsAny(s, " \x00/\n\"") || len(s) > maxName {
				t.Fatalf("accepted %q", s)
			}
		}
		if r.Command == wire.Add && (r.Args.Name == "" || r.Netns == "") {
			t.Fatal("an ADD without pod or namespace")
		}
	})
}

func TestResultVersions(t *testing.T) {
	r := &Result{
		Host:      ResultInterface{Name: "p0", MTU: 1400},
		Pod:       ResultInterface{Name: "eth0", MAC: "0a:58:0a:00:00:03", MTU: 1400, Sandbox: "/run/netns/x"},
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.3/24"), netip.MustParsePrefix("fd00::3/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	}
	for version, want := range map[string]struct{ has, hasNot string }{
		"0.4.0": {`"version":"6","address":"fd00::3/64","gateway":"fd00::1"`, `"mtu"`},
		"1.0.0": {`{"address":"10.0.0.3/24","gateway":"10.0.0.1","interface":1}`, `"mtu"`},
		"1.1.0": {`"mtu":1400,"sandbox":"/run/netns/x"`, `"version"`},
	} {
		b, err := r.Encode(version)
		if err != nil {
			t.Fatal(err)
		}
		if s := string(b); !strings.Contains(s, want.has) || strings.Contains(s, want.hasNot) || !strings.Contains(s, `"dst":"::/0"`) {
			t.Errorf("%s: %s", version, s)
		}
	}
}

func TestInstall(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	for range 2 {
		if err := InstallBinary(source, bin); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(filepath.Join(bin, BinaryName)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Fatalf("%v %v", fi, err)
	}
	conf := filepath.Join(dir, "net.d", "10-portolan.conflist")
	if err := WriteConflist(conf, "", Native); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(conf)
	if err := WriteConflist(conf, "", Native); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(conf); !os.SameFile(before, after) {
		t.Error("an unchanged configuration was written again")
	}
	if entries, _ := os.ReadDir(filepath.Dir(conf)); len(entries) != 1 {
		t.Errorf("left beside the configuration: %v", entries)
	}
	b, _ := os.ReadFile(conf)
	var got struct {
		CNIVersion  string
		CNIVersions []string
		Plugins     []struct{ Type, MultiNetwork string }
	}
	if err := json.Unmarshal(b, &got); err != nil || got.CNIVersion != "1.0.0" || len(got.CNIVersions) != 3 ||
		got.Plugins[0].Type != "portolan-cni" || got.Plugins[0].MultiNetwork != "native" {
		t.Errorf("%s: %v", b, err)
	}
	for range 2 {
		if err := RemoveConflist(conf); err != nil {
			t.Fatal(err)
		}
	}
}

// TestModeIsByTheFilesOfTheRuntime: who comes first, and for whom our configuration is.
func TestModeIsByTheFilesOfTheRuntime(t *testing.T) {
	for _, c := range []struct {
		others []string
		multi  string // of our conflist; empty: there is none
		want   string
	}{
		{nil, "", "none"},
		{nil, Native, "native"},
		{nil, Multus, Half},
		{[]string{"00-multus.conf"}, Multus, "multus"},
		{[]string{"00-multus.conf"}, Native, Twice},
		{[]string{"00-multus.conf"}, "", "none"},
		{[]string{"05-flannel.conflist"}, Native, "05-flannel.conflist comes first"},
		{[]string{"20-flannel.conflist", "multus.d"}, Native, "native"},
	} {
		dir := t.TempDir()
		for _, name := range c.others {
			if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.multi != "" {
			if err := WriteConflist(filepath.Join(dir, "10-portolan.conflist"), "", c.multi); err != nil {
				t.Fatal(err)
			}
		}
		if got := Mode(dir, "10-portolan.conflist"); got != c.want {
			t.Errorf("%v with ours for %q: %q, want %q", c.others, c.multi, got, c.want)
		}
	}
	for multi, want := range map[string]bool{Native: true, Multus: false} {
		conf, err := ParseConfig(pluginOf(t, Conflist("", multi)))
		if r := (Request{Config: conf}); err != nil || r.native() != want {
			t.Errorf("a call by the conflist of %s is native: %t, %v", multi, r.native(), err)
		}
		if has := bytes.Contains(Conflist("", multi), []byte("cniVersions")); has != want {
			t.Errorf("the conflist of %s lists versions: %t", multi, has)
		}
	}
}

// pluginOf is what a runtime hands to the plugin of a list.
func pluginOf(t *testing.T, list []byte) []byte {
	t.Helper()
	var l struct{ Plugins []map[string]any }
	if err := json.Unmarshal(list, &l); err != nil {
		t.Fatal(err)
	}
	l.Plugins[0]["cniVersion"], l.Plugins[0]["name"] = "1.0.0", "portolan"
	b, err := json.Marshal(l.Plugins[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNamesThatMultusFinds are links to the plugin; another's program stays.
func TestNamesThatMultusFinds(t *testing.T) {
	dir := t.TempDir()
	names := []string{"portolan", BinaryName, "ovn-k8s-cni-overlay"}
	for range 2 {
		if err := InstallNames(dir, names); err != nil {
			t.Fatal(err)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "portolan")); err != nil || to != BinaryName {
		t.Errorf("%q, %v", to, err)
	}
	for range 2 {
		if err := RemoveNames(dir, names); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(dir, "ovn-k8s-cni-overlay")
	if err := os.WriteFile(other, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := InstallNames(dir, names); err == nil || !strings.Contains(err.Error(), other+" is another program") {
		t.Errorf("a program of that name: %v", err)
	}
	if err := RemoveNames(dir, names); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(other); err != nil || string(b) != "another's" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAnnouncements(t *testing.T) {
	mac := []byte{0x0a, 0x58, 10, 0, 0, 3}
	arp := arpAnnouncement(mac, netip.MustParseAddr("10.0.0.3"))
	if len(arp) != 42 || string(arp[28:32]) != string(arp[38:42]) || arp[0] != 0xff {
		t.Errorf("ARP announcement % x", arp)
	}
	na := neighbourAdvertisement(mac, netip.MustParseAddr("fd00::3"))
	pseudo := append(append([]byte{}, na[22:54]...), 0, 0, 0, byte(len(na)-54), 0, 0, 0, 58)
	if len(na) != 14+40+32 || checksum(append(pseudo, na[54:]...)) != 0 {
		t.Errorf("neighbour advertisement % x", na)
	}
}

func TestDeviceNames(t *testing.T) {
	d := deviceOf("8d1c", "eth0", 0)
	if len(d.Host) > maxIfName || !isHost().MatchString(d.Host) || d.Host == deviceOf("8d1c", "eth0", 1).Host {
		t.Errorf("%+v", d)
	}
}
