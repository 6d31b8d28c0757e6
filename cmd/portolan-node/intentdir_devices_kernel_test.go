//go:build kernel

package main

import (
	"fmt"
	"strings"
	"testing"
)

const poolFile = `apiVersion: portolan.io/v1alpha1
kind: DevicePool
metadata: {name: fast}
spec: {resourceName: portolan.io/fast, kind: soft, soft: {count: 2}}
`

// deviceFiles have a pod on blue by a device that it names.
func deviceFiles() string {
	return strings.Replace(networkFiles, "'blue,green'", `'[{"name":"blue","deviceID":"soft-fast-1"}]'`, 1)
}

// TestIntentDirHasDevices has an agent without an API server make soft devices of a pool,
// attach a pod by one, and take them away with the pool: the pod's with the pod.
func TestIntentDirHasDevices(t *testing.T) { apart(t, insideDevices) }

func insideDevices(t *testing.T, dir string) {
	tr := ready(t, dir)
	links := func() string {
		out, err := tr.run("ip", "-o", "link")
		if err != nil {
			t.Fatal(err, out)
		}
		return out
	}
	has := func(what string, there map[string]bool) {
		t.Helper()
		tr.until(what, func() error {
			all := links()
			for name, want := range there {
				if strings.Contains(all, " "+name+"@") != want {
					agent, _ := tr.run("tail", "-20", "/run/agent.log")
					return fmt.Errorf("%s: want %t: %s\n%s", name, want, all, agent)
				}
			}
			return nil
		})
	}
	tr.write("intent/networks.yaml", deviceFiles())
	tr.write("intent/pools.yaml", poolFile)
	has("soft devices", map[string]bool{"sr-fast-0": true, "sv-fast-0": true, "sr-fast-1": true, "sv-fast-1": true})
	if out, err := tr.run("ip", "netns", "add", "multi"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tr.native("ADD"); err != nil {
		agent, _ := tr.run("tail", "-20", "/run/agent.log")
		t.Fatalf("ADD: %v: %s\n%s", err, out, agent)
	}
	out, err := tr.run("ip", "netns", "exec", "multi", "ip", "-o", "-4", "addr")
	if err != nil || !strings.Contains(out, "net1    inet 10.1.0.1/24") {
		t.Fatalf("the pod has %s, %v", out, err)
	}
	port, err := tr.run("ovs-vsctl", "--bare", "--columns=external_ids", "find", "Interface", "name=sr-fast-1")
	if err != nil || !strings.Contains(port, "iface-id=default.blue_default_multi") || !strings.Contains(port, "portolan/device=soft-fast-1") {
		t.Errorf("the representor has %q, %v", port, err)
	}
	has("the pod's function is the pod's", map[string]bool{"sr-fast-1": true, "sv-fast-1": false})
	tr.write("intent/pools.yaml", "")
	has("the pool's devices gone but for the pod's", map[string]bool{"sr-fast-0": false, "sr-fast-1": true})
	if out, err := tr.native("DEL"); err != nil {
		t.Fatalf("DEL: %v: %s", err, out)
	}
	has("the pod's device gone", map[string]bool{"sr-fast-1": false, "sv-fast-1": false})
}
