//go:build guest

package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// binEnv names the directory with Portolan's programs, a share of the guest.
const binEnv = "PORTOLAN_BIN"

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

// agent is a host on which portolan-node runs with all daemons, and intent from files.
type agent struct {
	rig.OVS
	bin string
}

// startAgent starts it as the pods of deploy/ do. settings are of Open_vSwitch's one row.
func startAgent(t *testing.T, l *rig.Lab, pods []string, settings ...string) agent {
	t.Helper()
	bin := os.Getenv(binEnv)
	if bin == "" {
		t.Fatal(binEnv + " names no directory: make e2e SUITE=offload sets it")
	}
	wire := l.Wire()
	h := l.Host("n1", bin)
	wire.Plug(h, "eth0", "172.30.0.2/24")
	h.Run("ip", "route", "add", "default", "via", "172.30.0.1")
	h.PrepareOVS()
	h.Write("etc/portolan/cluster.yaml", clusterFile)
	text := nodeFile
	for _, p := range pods {
		text += fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default, uid: u-%s}\nspec: {nodeName: n1, containers: [{name: c, image: x}]}\n", p, p)
	}
	h.Write("intent/all.yaml", text)
	a := agent{rig.OVS{Host: h}, bin}
	for _, d := range []string{"ovsdb-server-ovs", "ovsdb-server-nb", "ovsdb-server-sb"} {
		h.Start(d, bin+"/portolan-node", "daemon", d)
	}
	for _, socket := range []string{"openvswitch/db.sock", "ovn/ovnnb_db.sock", "ovn/ovnsb_db.sock"} {
		rig.Wait(t, "socket "+socket, func() error { _, err := os.Stat(h.Path("run/" + socket)); return err })
	}
	if len(settings) > 0 {
		a.Vsctl(append([]string{"--no-wait", "--", "init", "--", "set", "Open_vSwitch", "."}, settings...)...)
	}
	for _, d := range []string{"vswitchd", "northd", "ovn-controller"} {
		h.Start(d, bin+"/portolan-node", "daemon", d)
	}
	h.Start("agent", bin+"/portolan-node", "--node-name=n1", "--intent-dir=/intent", "--cni-binary="+bin+"/portolan-cni", "--health-bind=")
	rig.Wait(t, "the agent's CNI configuration", func() error { _, err := os.Stat(h.Path("etc/cni/net.d/10-portolan.conflist")); return err })
	return a
}

// add calls portolan-cni for a pod as a runtime does, in a namespace that it makes.
func (a agent) add(t *testing.T, name string) *rig.Pod {
	t.Helper()
	a.Run("ip", "netns", "add", name)
	var said string
	rig.Wait(t, "ADD of "+name, func() (err error) {
		said, err = a.cni("ADD", name)
		return err
	})
	var result struct {
		IPs []struct{ Address string } `json:"ips"`
	}
	if err := json.Unmarshal([]byte(said), &result); err != nil || len(result.IPs) == 0 {
		t.Fatalf("ADD of %s: %v: %s", name, err, said)
	}
	return rig.PodAt(a.Host, name, result.IPs[0].Address)
}

func (a agent) cni(command, name string) (string, error) {
	return a.Try("sh", "-c", fmt.Sprintf(`echo '{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}' |
CNI_COMMAND=%s CNI_CONTAINERID=c-%s CNI_NETNS=/run/netns/%s CNI_IFNAME=eth0 CNI_PATH=%s \
CNI_ARGS='K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=u-%s' %s/portolan-cni`, command, name, name, a.bin, name, name, a.bin))
}

// TestDebianAgent: the product itself on the kernel's datapath. Today no flow
// between its pods goes into TC: routers with gateway_mtu ask for ct.dnat in a
// table that every packet passes, so that each flow of the datapath has that bit
// of ct_state in its mask, which TC does not know. Without gateway_mtu they do.
func TestDebianAgent(t *testing.T) {
	l := rig.New(t)
	a := startAgent(t, l, []string{"web", "db"}, rig.HWOffload()...)
	web, db := a.add(t, "web"), a.add(t, "db")
	ping(t, web, db.Addr.Addr().String())
	port := a.Vsctl("--bare", "--columns=name", "find", "Interface", "external_ids:iface-id=default_web")
	l.Run("GatewayMTU", func(t *testing.T) {
		flowsFrom(t, a.OVS, port, "ovs", "")
	})
	l.Run("NoGatewayMTU", func(t *testing.T) {
		for _, port := range strings.Fields(a.Run("ovn-nbctl", "--bare", "--columns=_uuid", "list", "Logical_Router_Port")) {
			a.Run("ovn-nbctl", "remove", "Logical_Router_Port", port, "options", "gateway_mtu")
		}
		a.Run("ovn-nbctl", "--timeout=60", "--wait=hv", "sync")
		a.Forget() // a flow whose mask asks for more than is needed is kept as long as it is used
		flowsFrom(t, a.OVS, port, "tc", "")
	})
	if said, err := a.cni("DEL", "web"); err != nil {
		t.Errorf("DEL: %v %s", err, said)
	}
}
