package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

// The node's own network, beside everything of the machine's.
const (
	gatewayDevice = "ptl-hw0" // a veth, which Portolan takes for the node's NIC
	gatewayPeer   = "ptl-hw1"
	nodeAddress   = "198.19.255.2"
)

// clusterFile and intentFile are the node's intent.
const clusterFile = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: hardware}
spec:
  clusterSubnets: [198.18.0.0/16/24]
  serviceSubnets: [198.19.0.0/24]
  joinSubnets: [198.19.1.0/24]
  transitSubnets: [198.19.2.0/24]
  gateway: {interface: ` + gatewayDevice + `}
  offload: {mode: hardware}
`

const intentFile = `apiVersion: v1
kind: Node
metadata:
  name: hardware
  annotations: {k8s.ovn.org/node-id: "2", k8s.ovn.org/node-subnets: '{"default":["198.18.1.0/24"]}'}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
`

// podFile is a pod.
func podFile(name string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %[1]s, namespace: default, uid: u-%[1]s}\nspec: {nodeName: hardware, containers: [{name: c, image: x}]}\n", name)
}

// poolFile is the DevicePool that makes the NIC what the run needs.
func poolFile(pf sriov.PF, vfs int, mode sriov.Mode) string {
	selector := fmt.Sprintf("rootDevices: [%q]", pf.ID)
	if pf.Bus != "pci" {
		selector = fmt.Sprintf("pfNames: [%q]", pf.Netdev)
	}
	return fmt.Sprintf("---\napiVersion: portolan.io/v1alpha1\nkind: DevicePool\nmetadata: {name: hardware}\nspec: {resourceName: portolan.io/hardware, nics: {%s}, vfs: %d, mode: %s}\n", selector, vfs, mode)
}

// node is a process whose root is the tree with OVN, written over and thrown away, in
// the machine's network namespace; and the daemons in it. All ends with this process.
type node struct {
	init *exec.Cmd
	dir  string
	bin  string // Portolan's programs, at the same path inside
}

// boot makes the root and waits to be ended. It is PID 1 of a PID namespace, and takes all with it.
const boot = `set -e
mount --make-rprivate /
mount -t tmpfs hardware "$DIR"
mkdir "$DIR/upper" "$DIR/work" "$DIR/root"
mount -t overlay hardware -o "lowerdir=$LOWER,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/root"
cd "$DIR/root"
mkdir -p dev proc sys run tmp mnt "./$BIN"
mount --rbind /dev dev
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs run run
mount -t tmpfs tmp tmp
mkdir -p "./$BIN"
mount --bind "$BIN" "./$BIN"
pivot_root . mnt
umount -l mnt
cd /
mkdir -p /run/netns /run/openvswitch /run/ovn /var/lib/openvswitch /var/lib/ovn /var/log/openvswitch /var/log/ovn /intent /etc/portolan
echo up
exec sleep infinity`

// newNode makes the root, and the node's NIC.
func newNode(c config) (*node, error) {
	lower, err := filepath.EvalSymlinks(c.root)
	if err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(c.bin)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "portolan-hardware-")
	if err != nil {
		return nil, err
	}
	n := &node{dir: dir, bin: bin}
	n.init = exec.Command("sh", "-c", boot)
	n.init.Env = append(os.Environ(), "DIR="+dir, "LOWER="+lower, "BIN="+bin)
	n.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	out, err := n.init.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	n.init.Stderr = &said
	if err := n.init.Start(); err != nil {
		return nil, err
	}
	line := make([]byte, 3)
	if read, _ := out.Read(line); string(line[:read]) != "up\n" {
		_ = n.init.Wait()
		return nil, errors.Join(fmt.Errorf("the node's root: %s", said.String()), os.Remove(dir))
	}
	return n, gateway()
}

// gateway makes the veth pair that is the node's NIC.
func gateway() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = gatewayDevice
	pair := netlink.NewVeth(attrs)
	pair.PeerName = gatewayPeer
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("%s: %w", gatewayDevice, err)
	}
	addr, err := netlink.ParseAddr(nodeAddress + "/30")
	if err != nil {
		return err
	}
	peer, err := netlink.LinkByName(gatewayPeer)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(pair, addr), netlink.LinkSetUp(pair), netlink.LinkSetUp(peer))
}

// path is where this process sees a file of the node.
func (n *node) path(name string) string {
	return fmt.Sprintf("/proc/%d/root/%s", n.init.Process.Pid, name)
}

func (n *node) write(name, text string) error { return os.WriteFile(n.path(name), []byte(text), 0o644) }

func (n *node) command(ctx context.Context, argv ...string) *exec.Cmd {
	in := []string{"--target", strconv.Itoa(n.init.Process.Pid), "--mount", "--pid", "--"}
	return exec.CommandContext(ctx, "nsenter", append(in, argv...)...)
}

// run runs a program to its end.
func (n *node) run(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := n.command(ctx, argv...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s%s", strings.Join(argv, " "), err, out, stderr.String())
	}
	return string(out), err
}

// start starts a daemon, which ends with the node.
func (n *node) start(name string, argv ...string) error {
	log, err := os.Create(n.path("run/" + name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// exec: the number is the program's own, in the node's PID namespace.
	cmd := n.command(context.Background(), append([]string{"sh", "-c", `echo $$ > "/run/$0.number"; exec "$@"`, name}, argv...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is this process's alone
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // ends with the daemon, at the latest when the PID namespace does
	return nil
}

// serve starts everything, as the pods of deploy/ do, and waits until portolan-node takes calls.
func (n *node) serve(ctx context.Context) error {
	if err := errors.Join(n.write("etc/portolan/cluster.yaml", clusterFile), n.write("intent/all.yaml", intentFile)); err != nil {
		return err
	}
	program := n.bin + "/portolan-node"
	for _, d := range []string{"ovsdb-server-ovs", "ovsdb-server-nb", "ovsdb-server-sb"} {
		if err := n.start(d, program, "daemon", d); err != nil {
			return err
		}
	}
	for _, socket := range []string{"run/openvswitch/db.sock", "run/ovn/ovnnb_db.sock", "run/ovn/ovnsb_db.sock"} {
		if err := n.wait(ctx, socket, n.has(socket)); err != nil {
			return err
		}
	}
	if _, err := n.run(ctx, "ovs-vsctl", "--no-wait", "--", "init", "--", "set", "Open_vSwitch", ".", "other_config:hw-offload=true"); err != nil {
		return err
	}
	for _, d := range []string{"vswitchd", "northd", "ovn-controller"} {
		if err := n.start(d, program, "daemon", d); err != nil {
			return err
		}
	}
	if err := n.start("agent", program, "--node-name=hardware", "--node-ip="+nodeAddress, "--intent-dir=/intent", "--cni-binary="+n.bin+"/portolan-cni", "--health-bind="); err != nil {
		return err
	}
	if err := n.wait(ctx, "portolan-node ready", n.has("etc/cni/net.d/10-portolan.conflist")); err != nil {
		return err
	}
	return n.wait(ctx, "portolan-node's socket", n.has("run/portolan/cni.sock"))
}

func (n *node) has(file string) func() error {
	return func() error { _, err := os.Stat(n.path(file)); return err }
}

// wait looks until ok gives nil. Its error has the end of portolan-node's log.
func (n *node) wait(ctx context.Context, what string, ok func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w%s", what, context.Cause(ctx), err, n.tail("run/agent.log"))
		}
	}
}

// tail is the end of a log.
func (n *node) tail(name string) string {
	text, err := os.ReadFile(n.path(name))
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "\n" + name + " ends with:\n  " + strings.Join(lines[max(0, len(lines)-15):], "\n  ")
}

// cni calls portolan-cni as a runtime does.
func (n *node) cni(ctx context.Context, command, pod, device string) (string, error) {
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","deviceID":%q}`, device)
	return n.run(ctx, "env", "CNI_COMMAND="+command, "CNI_CONTAINERID=c-"+pod, "CNI_NETNS=/run/netns/"+pod, "CNI_IFNAME=eth0", "CNI_PATH="+n.bin,
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+pod+";K8S_POD_UID=u-"+pod,
		"sh", "-c", `printf %s "$1" | `+n.bin+"/portolan-cni", "sh", config)
}

// end ends everything of the node: the agent first, so that nothing is made anew, and
// the kernel's datapath, which would outlive its ovs-vswitchd.
func (n *node) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, stopped := n.run(ctx, "sh", "-c", "[ ! -e /run/agent.number ] || { p=$(cat /run/agent.number); kill -TERM $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done; }")
	_, cleaned := n.run(ctx, n.bin+"/portolan-node", "cleanup", "--node-name=hardware")
	_, left := n.run(ctx, "ovs-appctl", "-t", "ovs-vswitchd", "exit", "--cleanup")
	_ = n.init.Process.Kill()
	_ = n.init.Wait()
	var gone error
	if l, err := netlink.LinkByName(gatewayDevice); err == nil {
		gone = netlink.LinkDel(l)
	}
	return errors.Join(stopped, cleaned, left, gone, os.Remove(n.dir))
}
