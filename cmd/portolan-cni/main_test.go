package main

import (
	"bytes"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// execute runs the program with an environment and stdin.
func execute(env map[string]string, stdin string) (code int, stdout string) {
	var out bytes.Buffer
	code = run(func(k string) string { return env[k] }, strings.NewReader(stdin), &out)
	return code, out.String()
}

// agent answers calls as portolan-node would, by a function.
func agent(t *testing.T, answer func(*wire.Call) *wire.Reply) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			call := new(wire.Call)
			if err := wire.Read(conn, call); err == nil {
				if reply := answer(call); reply != nil {
					_ = wire.Write(conn, reply)
				}
			}
			conn.Close()
		}
	}()
	return socket
}

func conf(version, socket string) string {
	b, _ := json.Marshal(map[string]string{"cniVersion": version, "name": "portolan", "type": "portolan-cni", "socket": socket})
	return string(b)
}

func TestForwards(t *testing.T) {
	var got *wire.Call
	socket := agent(t, func(c *wire.Call) *wire.Reply {
		got = c
		return &wire.Reply{Result: json.RawMessage(`{"cniVersion":"1.0.0"}`)}
	})
	code, out := execute(map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0", "CNI_ARGS": "A=b"},
		conf("1.0.0", socket))
	if code != 0 || out != "{\"cniVersion\":\"1.0.0\"}\n" {
		t.Errorf("%d %q", code, out)
	}
	if got.Command != "ADD" || got.ContainerID != "c" || got.Netns != "/n" || got.IfName != "eth0" || got.Args != "A=b" || len(got.Config) == 0 {
		t.Errorf("%+v", got)
	}
}

func TestPrintsErrors(t *testing.T) {
	refuses := agent(t, func(*wire.Call) *wire.Reply { return &wire.Reply{Error: wire.Errorf(102, "full")} })
	dies := agent(t, func(*wire.Call) *wire.Reply { return nil })
	nobody := filepath.Join(t.TempDir(), "none")
	for name, c := range map[string]struct {
		command, stdin string
		code           uint
		says           string
	}{
		"refused":       {"ADD", conf("1.0.0", refuses), 102, "full"},
		"died":          {"ADD", conf("1.0.0", dies), wire.CodeTryAgain, "went away"},
		"no agent":      {"ADD", conf("1.0.0", nobody), wire.CodeTryAgain, "portolan-node is not running on this node"},
		"no agent, DEL": {"DEL", conf("1.0.0", nobody), wire.CodeTryAgain, nobody},
		"no agent, STA": {"STATUS", conf("1.1.0", nobody), wire.CodeUnavailable, "portolan-node pod"},
		"no JSON":       {"ADD", "{", wire.CodeDecode, "not JSON"},
		"old version":   {"ADD", conf("0.2.0", ""), wire.CodeVersion, "0.4.0"},
		"no command":    {"", conf("1.0.0", ""), wire.CodeEnvironment, "CNI_COMMAND"},
		"odd command":   {"FROB", conf("1.0.0", ""), wire.CodeEnvironment, "FROB"},
	} {
		code, out := execute(map[string]string{"CNI_COMMAND": c.command}, c.stdin)
		var e struct {
			CNIVersion   string
			Code         uint
			Msg, Details string
		}
		if err := json.Unmarshal([]byte(out), &e); err != nil || code != 1 || e.Code != c.code || !strings.Contains(e.Msg+e.Details, c.says) || e.CNIVersion == "" {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
	}
}

func TestVersionNeedsNoAgent(t *testing.T) {
	code, out := execute(map[string]string{"CNI_COMMAND": "VERSION"}, `{"cniVersion":"1.1.0"}`)
	if code != 0 || out != `{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0","1.1.0"]}`+"\n" {
		t.Errorf("%d %q", code, out)
	}
}
