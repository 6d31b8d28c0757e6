//go:build kernel

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
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
	before := tr.written("sr-mp")
	tr.again("agent2")
	tr.portIs("sr-mp", "veth")
	if after := tr.written("sr-mp"); after != before {
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

// TestManagementPortOfAResource: the management port is the first free device of a pool's
// resource; with no pool, or all of them pods', it is Open vSwitch's own, and a problem
// says why; a restart writes nothing; no pod is given it; it follows the pool's end.
func TestManagementPortOfAResource(t *testing.T) { apart(t, managementOfAResource) }

func managementOfAResource(t *testing.T, dir string) {
	tr := readyWith(t, dir, strings.Replace(managementCluster, "device: soft-mp", "resourceName: portolan.io/fast", 1))
	if out, err := tr.run("ip", "netns", "add", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tr.plugin("ADD"); err != nil {
		t.Fatalf("ADD: %v: %s", err, out)
	}
	tr.portIs("", "tun")
	tr.problem("no DevicePool offers a device of resource portolan.io/fast on this node")

	// One device, which a pod has already: the port has to wait for a second.
	one := strings.Replace(poolFile, "count: 2", "count: 1", 1)
	tr.write("intent/networks.yaml", strings.Replace(deviceFiles(), "soft-fast-1", "soft-fast-0", 1))
	tr.write("intent/pools.yaml", strings.Replace(one, "portolan.io/fast", "portolan.io/other", 1))
	if out, err := tr.run("ip", "netns", "add", "multi"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	tr.until("the pod on soft-fast-0", func() error { out, err := tr.native("ADD"); return wrapped(err, out) })
	tr.write("intent/pools.yaml", one)
	tr.problem("no device of resource portolan.io/fast is free (soft-fast-0: in use: pod default/multi)")
	tr.portIs("", "tun")
	tr.losing("a pool comes", func() { tr.write("intent/pools.yaml", poolFile); tr.portIs("sr-fast-1", "veth") })

	if out, err := tr.native("DEL"); err != nil {
		t.Fatalf("DEL: %v: %s", err, out)
	}
	tr.portIs("sr-fast-1", "veth") // and not the device that is free now
	before := tr.written("sr-fast-1")
	tr.again("agent2")
	tr.portIs("sr-fast-1", "veth")
	if after := tr.written("sr-fast-1"); after != before {
		t.Errorf("a restart has written: before\n%s\nafter\n%s", before, after)
	}
	tr.write("intent/networks.yaml", deviceFiles())
	tr.until("the port's device refused to a pod", func() error {
		out, err := tr.native("ADD")
		if err == nil || !strings.Contains(out, "it is the node's management port") {
			_, end := tr.native("DEL") // the agent had not read the file: the pod is on the other one
			return fmt.Errorf("%v, %v: %s", err, end, out)
		}
		return nil
	})

	tr.losing("another pool takes its place", func() {
		tr.write("intent/pools.yaml", strings.Replace(poolFile, "name: fast", "name: next", 1))
		tr.portIs("sr-next-0", "veth")
	})
	tr.gone("fast-1")
	tr.losing("it goes", func() { tr.write("intent/pools.yaml", ""); tr.portIs("", "tun") })
	tr.gone("next-0")
}

// gone waits until neither end of a soft device is there.
func (tr tree) gone(label string) {
	tr.t.Helper()
	tr.until(label+" gone", func() error {
		if out, err := tr.run("ip", "-o", "link"); err != nil || strings.Contains(out, "-"+label) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// losing tells how many packets of some sixty a second from the node to its pod were not
// answered while the port is switched.
func (tr tree) losing(what string, do func()) {
	tr.t.Helper()
	done := make(chan string)
	go func() {
		ctx, cancel := context.WithTimeout(tr.t.Context(), 20*time.Second)
		defer cancel()
		out, _ := tr.command(ctx, "ping", "-q", "-i", "0.01", "-c", "450", "-W", "1", "10.244.1.3").Output()
		done <- string(out)
	}()
	do()
	lines := strings.Split(<-done, "\n")
	for _, line := range lines {
		if strings.Contains(line, "received") {
			tr.t.Logf("%s: %s", what, line)
			return
		}
	}
	tr.t.Errorf("%s: ping says %q", what, lines)
}

// problem waits until portolan problems has a text.
func (tr tree) problem(want string) {
	tr.t.Helper()
	tr.until("a problem: "+want, func() error {
		if out, err := tr.run("portolan", "problems"); !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

func wrapped(err error, said string) error {
	if err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
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
func (tr tree) written(representor string) string {
	var all []string
	for _, c := range [][]string{
		{"ovsdb-client", "-f", "csv", "dump", "unix:/run/openvswitch/db.sock", "Open_vSwitch", "Port", "name", "_uuid", "_version"},
		{"ovsdb-client", "-f", "csv", "dump", "unix:/run/openvswitch/db.sock", "Open_vSwitch", "Bridge", "name", "_uuid", "ports"},
		{"ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids"},
		{"ip", "-o", "link", "show", "ovn-k8s-mp0"}, {"ip", "-o", "link", "show", representor}, {"ip", "-o", "addr", "show", "ovn-k8s-mp0"},
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
