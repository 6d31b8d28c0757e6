package delegate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
)

// script makes a plugin of shell commands, which gives a result of one address.
func script(t *testing.T, dir, name, body string) {
	t.Helper()
	text := "#!/bin/sh\n" + body + "\n" + `[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}'` + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func delegation(plugin string) cni.Delegation {
	return cni.Delegation{For: cni.DelegateInterface, Pod: cni.Pod{Namespace: "shop", Name: "web", UID: "u"}, Key: "shop/x", Sandbox: "s1", Netns: "/run/netns/none", IfName: "net1",
		Chain: cni.Chain{List: []byte(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"` + plugin + `"}]}`)}}
}

func open(t *testing.T, c Config) *Plugins {
	t.Helper()
	p, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// TestRecords are there from before a plugin runs until it has undone its part, in
// whichever process.
func TestRecords(t *testing.T) {
	c := Config{BinDir: t.TempDir(), State: t.TempDir()}
	script(t, c.BinDir, "good", `ls `+c.State+`/*.json >/dev/null || exit 1; [ "$CNI_COMMAND" != DEL ] || [ -z "$CNI_NETNS" ] || exit 1`)
	script(t, c.BinDir, "bad", `echo '{"code":7,"msg":"not today"}'; exit 1`)
	p := open(t, c)
	result, err := p.Add(t.Context(), delegation("good"))
	if err != nil || result.IPs[0].Address.String() != "10.0.0.2/24" {
		t.Fatalf("%v, %v", result, err)
	}
	bad := delegation("bad")
	bad.Key = "shop/bad"
	if _, err := p.Add(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "not today") {
		t.Errorf("%v", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p = open(t, c)
	list, _ := p.List()
	if len(list) != 2 || list[0].Key != "shop/bad" || list[0].Result != nil || list[1].Result == nil {
		t.Fatalf("%+v", list)
	}
	if err := p.Del(t.Context(), list[1]); err != nil {
		t.Error(err)
	}
	if err := p.Del(t.Context(), list[0]); err == nil {
		t.Error("a DEL that failed is told to have been")
	}
	if list, _ := p.List(); len(list) != 1 {
		t.Errorf("left %+v", list)
	}
}

// TestOpenWaits for a plugin that a process before has started and left.
func TestOpenWaits(t *testing.T) {
	c := Config{BinDir: t.TempDir(), State: t.TempDir()}
	gate := filepath.Join(t.TempDir(), "gate")
	script(t, c.BinDir, "slow", `(until [ -e `+gate+` ]; do sleep 0.05; done) >/dev/null 2>&1 &`)
	p := open(t, c)
	if _, err := p.Add(t.Context(), delegation("slow")); err != nil {
		t.Fatal(err)
	}
	_ = p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, c); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("opened while it runs: %v", err)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, c)
}

// TestWhatIsNotExecuted is all that is no program of the plugin directory.
func TestWhatIsNotExecuted(t *testing.T) {
	c := Config{BinDir: t.TempDir(), State: t.TempDir()}
	script(t, c.BinDir, "good", "")
	for name, write := range map[string]func(string) error{
		"text":      func(f string) error { return os.WriteFile(f, nil, 0o600) },
		"directory": func(f string) error { return os.Mkdir(f, 0o755) },
	} {
		if err := write(filepath.Join(c.BinDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, c)
	for plugin, want := range map[string]string{
		"text": "is no program", "directory": "is no program", "none": "is not in the node's plugin directory", "../good": "is no name",
		"..": "is no name", "/bin/sh": "is no name",
	} {
		if _, err := p.Add(t.Context(), delegation(plugin)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", plugin, err, want)
		}
	}
	if list, _ := p.List(); len(list) != 0 {
		t.Errorf("recorded %+v", list)
	}
}

func TestConfigNamed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"10-a.conflist": `{"name":"a","plugins":[]}`, "20-b.conf": `{"name":"b","type":"bridge"}`, "30-b.conf": `{"name":"b","type":"later"}`, "05-b.txt": `{"name":"b"}`, "40-c.json": `{`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := ConfigNamed(dir, "b"); got != `{"name":"b","type":"bridge"}` {
		t.Error(got)
	}
	if got := ConfigNamed(dir, "none") + ConfigNamed(dir+"/none", "a"); got != "" {
		t.Error(got)
	}
}

// TestRoot has plugins executed in another process's root, as from the agent's container
// in that of the machine's first.
func TestRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it enters another process's root directory")
	}
	c := Config{Root: fmt.Sprintf("/proc/%d/root", os.Getpid()), BinDir: t.TempDir(), State: t.TempDir()}
	script(t, c.BinDir, "good", `[ "$(pwd)" = / ] && [ -z "$KUBERNETES" ] || exit 1`)
	t.Setenv("KUBERNETES", "of the agent, and of no plugin")
	p := open(t, c)
	d := delegation("good")
	if _, err := p.Add(t.Context(), d); err != nil {
		t.Error(err)
	}
	if _, err := p.Add(t.Context(), delegation("none")); err == nil || !strings.Contains(err.Error(), "plugin directory "+c.BinDir) {
		t.Errorf("%v", err)
	}
	if err := p.Del(t.Context(), d); err != nil {
		t.Error(err)
	}
}
