//go:build kernel

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const managementCluster = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: c}
spec:
  clusterSubnets: [10.244.0.0/16/24]
  serviceSubnets: [10.96.0.0/16]
  managementPort: {device: soft-mp}
`

// TestManagementPortOnADevice: the node's management port is a function of a NIC, here of
// a soft device, with its representor in br-int: while the device is not there it is Open
// vSwitch's own, and says why; it follows the device as it comes and goes; a restart
// writes nothing; and given up, the device is as it was.
func TestManagementPortOnADevice(t *testing.T) { apart(t, managementOnADevice) }

func managementOnADevice(t *testing.T, dir string) {
	tr := readyWith(t, dir, managementCluster)
	if out, err := tr.run("ip", "netns", "add", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tr.plugin("ADD"); err != nil {
		t.Fatalf("ADD: %v: %s", err, out)
	}
	tr.portIs("", "tun")
	if log, _ := tr.run("cat", "/run/agent.log"); !strings.Contains(log, "device soft-mp: /sys/class/net/sr-mp: it does not exist") {
		t.Errorf("the agent does not say that the device is missing:\n%s", log)
	}

	tr.ip("link add sv-mp address 02:00:00:00:00:77 type veth peer name sr-mp")
	tr.portIs("sr-mp", "veth")
	before := tr.written()
	tr.again("agent2")
	tr.portIs("sr-mp", "veth")
	if after := tr.written(); after != before {
		t.Errorf("a restart has written: before\n%s\nafter\n%s", before, after)
	}

	tr.ip("link del sr-mp")
	tr.portIs("", "tun")
	tr.ip("link add sv-mp address 02:00:00:00:00:77 type veth peer name sr-mp")
	tr.portIs("sr-mp", "veth")

	tr.write("etc/portolan/cluster.yaml", clusterFile)
	tr.again("agent3")
	tr.portIs("", "tun")
	if out, _ := tr.run("ip", "-d", "addr", "show", "sv-mp"); !strings.Contains(out, "02:00:00:00:00:77") || strings.Contains(out, "10.244.1.2") {
		t.Errorf("given up, the device is\n%s", out)
	}
}

func (tr tree) ip(args string) {
	tr.t.Helper()
	if out, err := tr.run(append([]string{"ip"}, strings.Fields(args)...)...); err != nil {
		tr.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// portIs waits until br-int has the representor, or no port of a device, the management
// port is of a kind, and the node and its pod reach each other.
func (tr tree) portIs(representor, kind string) {
	tr.t.Helper()
	tr.until(fmt.Sprintf("representor %q, kind %s", representor, kind), func() error {
		out, err := tr.run("ovs-vsctl", "--bare", "--columns=name", "find", "Interface", "external_ids:iface-id=k8s-n1")
		want := representor
		if want == "" {
			want = "ovn-k8s-mp0"
		}
		if err != nil || strings.TrimSpace(out) != want {
			return fmt.Errorf("port k8s-n1 is %q: %v", out, err)
		}
		if out, err := tr.run("ip", "-d", "addr", "show", "ovn-k8s-mp0"); err != nil || !strings.Contains(out, kind+" ") {
			return fmt.Errorf("%v: %s", err, out)
		}
		if out, err := tr.run("ping", "-c1", "-W1", "10.244.1.3"); err != nil {
			return fmt.Errorf("node to pod: %v: %s", err, out)
		}
		if out, err := tr.run("ip", "netns", "exec", "web", "ping", "-c1", "-W1", "10.244.1.2"); err != nil {
			return fmt.Errorf("pod to node: %v: %s", err, out)
		}
		return nil
	})
}

// written is what there is of the management port, with what changes by being written
// again.
func (tr tree) written() string {
	var all []string
	for _, c := range [][]string{
		{"ovsdb-client", "-f", "csv", "dump", "unix:/run/openvswitch/db.sock", "Open_vSwitch", "Port", "name", "_uuid", "_version"},
		{"ovsdb-client", "-f", "csv", "dump", "unix:/run/openvswitch/db.sock", "Open_vSwitch", "Bridge", "name", "_uuid", "ports"},
		{"ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids"},
		{"ip", "-o", "link", "show", "ovn-k8s-mp0"}, {"ip", "-o", "link", "show", "sr-mp"}, {"ip", "-o", "addr", "show", "ovn-k8s-mp0"},
		{"ovn-nbctl", "list", "Logical_Switch_Port", "k8s-n1"},
	} {
		out, err := tr.run(c...)
		if err != nil {
			tr.t.Fatalf("%v: %v", c, err)
		}
		all = append(all, regexp.MustCompile(`ovn-ofctrl-wait-before-clear="\d+", `).ReplaceAllString(out, "")) // measured meanwhile
	}
	return strings.Join(all, "\n")
}

// again ends the agent, as the kubelet does, and has another be ready.
func (tr tree) again(name string) {
	tr.t.Helper()
	list, err := filepath.Glob(tr.root + "/proc/[0-9]*/cmdline")
	if err != nil {
		tr.t.Fatal(err)
	}
	ended := 0
	for _, file := range list {
		line, _ := os.ReadFile(file)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if strings.HasPrefix(string(line), "portolan-node\x00--node-name") {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				tr.t.Fatal(err)
			}
			ended++
		}
	}
	if ended != 1 {
		tr.t.Fatalf("%d agents found", ended)
	}
	tr.start(name, agentCommand()...)
	tr.until("ready again", func() error {
		log, err := os.ReadFile(filepath.Join(tr.root, "run", name+".log"))
		if err != nil || !strings.Contains(string(log), "msg=ready ") {
			return fmt.Errorf("%v: %s", err, log)
		}
		return nil
	})
}
