//go:build kernel

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// insideEnv marks the process that has namespaces of its own, and gives it a
// directory. That process mounts there and removes nothing: its mounts end with
// it, and only then the parent, which has never seen them, removes the directory.
const insideEnv = "PORTOLAN_INTENTDIR_INSIDE"

const clusterFile = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: c}
spec: {clusterSubnets: [10.244.0.0/16/24], serviceSubnets: [10.96.0.0/16]}
`

const nodeFile = `apiVersion: v1
kind: Node
metadata:
  name: n1
  annotations: {k8s.ovn.org/node-id: "2", k8s.ovn.org/node-subnets: '{"default":["10.244.1.0/24"]}'}
`

const podFile = `---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, uid: u1}
spec: {nodeName: n1, containers: [{name: c, image: x}]}
`

// TestIntentDirIsTheSameDoor runs the agent itself with every daemon and no API
// server: files say what there is, and the node becomes ready with the pod's
// logical port made. ADD attaches it. A pod taken out of the file loses both ports.
func TestIntentDirIsTheSameDoor(t *testing.T) { apart(t, inside) }

// apart runs fn in a process with namespaces of its own, as this test.
func apart(t *testing.T, fn func(t *testing.T, dir string)) {
	if dir := os.Getenv(insideEnv); dir != "" {
		fn(t, dir)
		return
	}
	dir := t.TempDir()
	for _, sub := range []string{"b", "over", "root"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", dir+"/b/", ".", "../portolan-cni", "../portolan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// PID 1 of a PID namespace takes everything with it when it ends.
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=100s")
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// tree is a private root: the OVN tree under a tmpfs, with our programs in /b.
type tree struct {
	t    *testing.T
	root string
}

// ready is a tree in which the agent runs, with a pod's logical port made.
func ready(t *testing.T, dir string) tree { return readyWith(t, dir, clusterFile) }

func readyWith(t *testing.T, dir, clusterFile string) tree {
	tr := tree{t: t, root: filepath.Join(dir, "root")}
	tr.mounts(dir)
	tr.write("etc/portolan/cluster.yaml", clusterFile)
	tr.write("intent/all.yaml", nodeFile+podFile)
	for _, c := range []string{
		"link set lo up", "link add eth0 type veth peer name wire", "link set wire up", "link set eth0 up",
		"addr add 172.30.0.2/24 dev eth0", "route add default via 172.30.0.1",
	} {
		if out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", c, err, out)
		}
	}
	for _, d := range []string{"ovsdb-server-ovs", "ovsdb-server-nb", "ovsdb-server-sb"} {
		tr.start(d, "portolan-node", "daemon", d)
	}
	for _, socket := range []string{"openvswitch/db.sock", "ovn/ovnnb_db.sock", "ovn/ovnsb_db.sock"} {
		tr.until("socket "+socket, func() error { _, err := os.Stat(filepath.Join(tr.root, "run", socket)); return err })
	}
	for _, d := range []string{"vswitchd", "northd", "ovn-controller"} {
		tr.start(d, "portolan-node", "daemon", d)
	}
	tr.start("agent", agentCommand()...)
	tr.until("ready, with the pod's logical port", func() error {
		_, err := os.Stat(filepath.Join(tr.root, "etc/cni/net.d/10-portolan.conflist"))
		port, _ := tr.run("ovn-nbctl", "--bare", "--columns=addresses", "find", "Logical_Switch_Port", "name=default_web")
		if err != nil || !strings.Contains(port, "10.244.1.3") {
			agent, _ := os.ReadFile(filepath.Join(tr.root, "run/agent.log"))
			return fmt.Errorf("%v; logical port %q; the agent says:\n%s", err, port, agent)
		}
		return nil
	})
	return tr
}

func agentCommand() []string {
	return []string{"portolan-node", "--node-name=n1", "--intent-dir=/intent", "--cni-binary=/b/portolan-cni", "--health-bind="}
}

// second starts another agent on the node: it must end and name the first.
func (tr tree) second() {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), 6*fencePatience)
	defer cancel()
	out, err := tr.command(ctx, agentCommand()...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another agent runs on this node: portolan-node, process ") {
		tr.t.Errorf("a second agent: %v: %s", err, out)
	}
}

func inside(t *testing.T, dir string) {
	tr := ready(t, dir)
	tr.second()
	if out, err := tr.run("ip", "netns", "add", "web"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := tr.plugin("ADD"); err != nil || !strings.Contains(out, "10.244.1.3/24") {
		t.Fatalf("ADD: %v: %s", err, out)
	}
	ids, err := tr.run("ovs-vsctl", "--bare", "--columns=external_ids", "find", "Interface", "external_ids:iface-id=default_web")
	if err != nil || !strings.Contains(ids, "ovn-installed=true") {
		t.Errorf("ADD was answered, the interface has %q, %v", ids, err)
	}
	tr.write("intent/all.yaml", nodeFile)
	if out, err := tr.plugin("DEL"); err != nil {
		t.Fatalf("DEL: %v: %s", err, out)
	}
	tr.until("the pod's ports gone", func() error {
		nb, err := tr.run("ovn-nbctl", "--bare", "--columns=name", "find", "Logical_Switch_Port", "name=default_web")
		ovs, err2 := tr.run("ovs-vsctl", "--bare", "--columns=name", "find", "Interface", "external_ids:iface-id=default_web")
		if err != nil || err2 != nil || strings.TrimSpace(nb+ovs) != "" {
			return fmt.Errorf("%v %v %q %q", err, err2, nb, ovs)
		}
		return nil
	})
}

// mounts makes the root. Of the machine's devices it has four, each bound as a file.
func (tr tree) mounts(dir string) {
	lower, err := filepath.EvalSymlinks(ovsdbtest.Root())
	if err != nil {
		tr.t.Fatal(err)
	}
	over := filepath.Join(dir, "over")
	tr.mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
	tr.mount("tmpfs", over, "tmpfs", 0, "")
	for _, d := range []string{"u", "w"} {
		if err := os.Mkdir(filepath.Join(over, d), 0o755); err != nil {
			tr.t.Fatal(err)
		}
	}
	tr.mount("overlay", tr.root, "overlay", 0, "lowerdir="+lower+",upperdir="+over+"/u,workdir="+over+"/w")
	tr.mount("proc", tr.root+"/proc", "proc", 0, "")
	tr.mount("sysfs", tr.root+"/sys", "sysfs", syscall.MS_RDONLY, "")
	tr.mount("tmpfs", tr.root+"/run", "tmpfs", 0, "")
	tr.mount("tmpfs", tr.root+"/run/netns", "tmpfs", 0, "")
	tr.mount(filepath.Join(dir, "b"), tr.root+"/b", "", syscall.MS_BIND, "")
	tr.mount("tmpfs", tr.root+"/dev", "tmpfs", 0, "")
	for _, d := range []string{"null", "random", "urandom", "net/tun"} {
		tr.write("dev/"+d, "")
		if err := syscall.Mount("/dev/"+d, tr.root+"/dev/"+d, "", syscall.MS_BIND, ""); err != nil {
			tr.t.Fatalf("bind /dev/%s: %v", d, err)
		}
	}
}

func (tr tree) mount(source, target, kind string, flags uintptr, data string) {
	tr.t.Helper()
	if err := os.MkdirAll(target, 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		tr.t.Fatalf("mount %s on %s: %v", source, target, err)
	}
}

func (tr tree) write(name, content string) {
	tr.t.Helper()
	file := filepath.Join(tr.root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		tr.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		tr.t.Fatal(err)
	}
}

// command is a program of the tree's, or of ours, in the tree.
func (tr tree) command(ctx context.Context, argv ...string) *exec.Cmd {
	in := []string{tr.root, "/usr/bin/env", "PATH=/b:/usr/sbin:/usr/bin:/sbin:/bin"}
	return exec.CommandContext(ctx, "chroot", append(in, argv...)...)
}

func (tr tree) run(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(tr.t.Context(), 5*time.Second)
	defer cancel()
	out, err := tr.command(ctx, argv...).Output()
	return string(out), err
}

// plugin executes portolan-cni for the pod as a runtime does.
func (tr tree) plugin(command string) (string, error) {
	ctx, cancel := context.WithTimeout(tr.t.Context(), 20*time.Second)
	defer cancel()
	c := tr.command(ctx, "env", "CNI_COMMAND="+command, "CNI_CONTAINERID=c1", "CNI_NETNS=/run/netns/web", "CNI_IFNAME=eth0",
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1", "portolan-cni")
	c.Stdin = strings.NewReader(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`)
	out, err := c.Output()
	return string(out), err
}

// start runs a program until the test ends, its output in /run/NAME.log.
func (tr tree) start(name string, argv ...string) {
	tr.t.Helper()
	log, err := os.Create(filepath.Join(tr.root, "run", name+".log"))
	if err != nil {
		tr.t.Fatal(err)
	}
	defer log.Close()
	cmd := tr.command(tr.t.Context(), argv...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { _ = cmd.Wait() }) // its context has ended by then
}

// until looks again and again, at most 40 s.
func (tr tree) until(what string, ok func() error) {
	tr.t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tr.t.Fatalf("not in time: %s: %v", what, err)
		}
		<-tick.C
	}
}
