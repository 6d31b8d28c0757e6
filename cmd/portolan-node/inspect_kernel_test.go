//go:build kernel

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

const westFile = `apiVersion: v1
kind: Pod
metadata: {name: west, namespace: default}
spec: {containers: [{name: c, image: x}]}
`

// TestOperatorAsksTheAgent asks a running agent, with real databases, by the program that
// people use: it explains a pod's port, plans a manifest, names what somebody
// changed with ovn-nbctl, is repaired, and its recording replays bit for bit.
func TestOperatorAsksTheAgent(t *testing.T) { apart(t, asks) }

// portolan runs the program, and prints what it said for the log.
func (tr tree) portolan(args ...string) (string, int) {
	tr.t.Helper()
	out, err := tr.run(append([]string{"portolan"}, args...)...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
		out += string(exit.Stderr)
	} else if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Logf("# portolan %s\n%s", strings.Join(args, " "), out)
	return out, code
}

// says runs the program and wants an exit status and lines in its output.
func (tr tree) says(code int, lines []string, args ...string) string {
	tr.t.Helper()
	out, got := tr.portolan(args...)
	if got != code {
		tr.t.Errorf("portolan %v: exit status %d, wanted %d", args, got, code)
	}
	for _, line := range lines {
		if !strings.Contains(out, line) {
			tr.t.Errorf("portolan %v: no %q", args, line)
		}
	}
	return out
}

func asks(t *testing.T, dir string) {
	tr := ready(t, dir)
	port := "NB:Logical_Switch_Port(default_web)"
	uuid, err := tr.run("ovn-nbctl", "--bare", "--columns=_uuid", "find", "Logical_Switch_Port", "name=default_web")
	if err != nil {
		t.Fatal(err)
	}
	tr.says(0, []string{port + "  parent NB:Logical_Switch(n1).ports", "unit     pod/default/web", "object   Pod/default/web", "         Node/n1"},
		"explain", strings.TrimSpace(uuid))
	tr.says(0, []string{port}, "show", "rows", "--unit", "pod/")
	tr.says(1, []string{"pod default/web on n1", "default  -         -       default_web   n1", "eth0 is not attached: the runtime has not asked for it"}, "pod", "default/web")
	tr.says(2, []string{"pod default/nobody is not known here"}, "pod", "default/nobody")
	tr.says(0, []string{"no networks beside the default one"}, "networks")
	tr.write("west.yaml", westFile)
	tr.says(0, []string{"assumed  Pod/default/west: node n1", "address 10.244.1.4/24", "+ NB:Logical_Switch_Port(default_west)", "cost: moderate"},
		"plan", "-f", "/west.yaml")
	tr.until("no difference", func() error {
		if out, code := tr.portolan("diff"); code != 0 {
			return errors.New(out)
		}
		return nil
	})

	if out, err := tr.run("ovn-nbctl", "lsp-set-addresses", "default_web", "0a:58:0a:f4:01:63 10.244.1.99"); err != nil {
		t.Fatal(err, out)
	}
	tr.says(1, []string{"different " + port + ".addresses (pod/default/web)", "10.244.1.99"}, "diff")
	// A row of ours that is deleted rings; then the whole database is read, and the
	// changed column is found too.
	if out, err := tr.run("ovn-nbctl", "lsp-del", "default_web"); err != nil {
		t.Fatal(err, out)
	}
	tr.until("the port repaired", func() error {
		addresses, err := tr.run("ovn-nbctl", "--bare", "--columns=addresses", "find", "Logical_Switch_Port", "name=default_web")
		if err != nil || !strings.Contains(addresses, "10.244.1.3") {
			return fmt.Errorf("%v, addresses %q", err, addresses)
		}
		return nil
	})
	tr.says(0, []string{"NB: as wanted"}, "diff")

	tr.says(0, nil, "record", "/f.flight")
	tr.says(0, []string{"portolan-node n1, written", "every answer is the same, bit for bit"}, "replay", "/f.flight")
	tr.says(0, []string{"put Pod/default/web", "insert " + port}, "replay", "/f.flight", "--events", "--txns")
}
