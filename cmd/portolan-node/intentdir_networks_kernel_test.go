//go:build kernel

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

const networkFiles = `apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: portolan.io/v1alpha1
kind: Network
metadata: {name: blue}
spec: {id: 1, topology: layer2, subnets: [10.1.0.0/24], definitions: [default/blue]}
---
apiVersion: portolan.io/v1alpha1
kind: Network
metadata: {name: green}
spec: {id: 2, topology: layer3, subnets: [10.2.0.0/16/24], definitions: [default/green]}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {namespace: default, name: blue}
spec: {config: '{"cniVersion":"1.0.0","type":"portolan","name":"blue","netAttachDefName":"default/blue","topology":"layer2","subnets":"10.1.0.0/24"}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {namespace: default, name: green}
spec: {config: '{"cniVersion":"1.0.0","type":"portolan","name":"green","netAttachDefName":"default/green","topology":"layer3","subnets":"10.2.0.0/16/24"}'}
---
apiVersion: v1
kind: Pod
metadata: {name: multi, namespace: default, uid: u2, annotations: {k8s.v1.cni.cncf.io/networks: 'blue,green'}}
spec: {nodeName: n1, containers: [{name: c, image: x}]}
`

// TestIntentDirHasNetworks has an agent without an API server attach a pod to a layer2
// and a layer3 network in one call; what it gives is in a file of the node's, and the
// pod's ports go with it.
func TestIntentDirHasNetworks(t *testing.T) { apart(t, insideNetworks) }

func insideNetworks(t *testing.T, dir string) {
	tr := ready(t, dir)
	tr.write("intent/networks.yaml", networkFiles)
	if out, err := tr.run("ip", "netns", "add", "multi"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tr.native("ADD"); err != nil {
		t.Fatalf("ADD: %v: %s", err, out)
	}
	out, err := tr.run("ip", "netns", "exec", "multi", "ip", "-o", "-4", "addr")
	if err != nil || !strings.Contains(out, "net1    inet 10.1.0.1/24") || !strings.Contains(out, "net2    inet 10.2.0.3/24") {
		t.Fatalf("the pod has %s, %v", out, err)
	}
	ports := func() string {
		out, err := tr.run("ovn-nbctl", "--bare", "--columns=name,addresses", "find", "Logical_Switch_Port", "external_ids:pod=true")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tr.until("logical ports on both", func() error {
		if p := ports(); !strings.Contains(p, "default.blue_default_multi") || !strings.Contains(p, "default.green_default_multi") {
			return fmt.Errorf("%s", p)
		}
		return nil
	})
	if out, err := tr.native("CHECK"); err != nil {
		t.Errorf("CHECK: %v: %s", err, out)
	}
	if blocks, err := tr.run("cat", "/var/lib/portolan/blocks.json"); err != nil || !strings.Contains(blocks, `"pod":"default/multi"`) {
		t.Errorf("%s, %v", blocks, err)
	}
	tr.write("intent/networks.yaml", networkFiles[:strings.LastIndex(networkFiles, "---")])
	if out, err := tr.native("DEL"); err != nil {
		t.Fatalf("DEL: %v: %s", err, out)
	}
	tr.until("the pod's ports gone", func() error {
		if p := ports(); strings.Contains(p, "multi") {
			return fmt.Errorf("%s", p)
		}
		return nil
	})
}

// native executes portolan-cni as a runtime does that has our own conflist.
func (tr tree) native(command string) (string, error) {
	ctx, cancel := context.WithTimeout(tr.t.Context(), 30*time.Second)
	defer cancel()
	c := tr.command(ctx, "env", "CNI_COMMAND="+command, "CNI_CONTAINERID=c2", "CNI_NETNS=/run/netns/multi", "CNI_IFNAME=eth0",
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=multi;K8S_POD_UID=u2", "portolan-cni")
	c.Stdin = strings.NewReader(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
	out, err := c.Output()
	return string(out), err
}
