//go:build guest

package suite

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// namespaceFile is the pods' namespace, which pools with its label trust.
const namespaceFile = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {trust: full}}\n"

// physicalConfig attaches a function to the physical network itself, as sriov-cni does:
// fields are its own.
func physicalConfig(device, fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"wire","type":"sriov","deviceID":%q%s}`, device, fields)
}

// physical is a node with a legacy NIC whose functions pods are given.
type physical struct {
	*agent
	pf, far rig.PF
	intent  string // the pool trusts namespaces with the label trust: full
}

// declare says what the label is of the pods' namespace.
func (p physical) declare(trust string) {
	p.Write("intent/all.yaml", p.intent+strings.ReplaceAll(namespaceFile, "trust: full", "trust: "+trust))
}

// TestDebianFunctions: pods get functions of an emulated igb on the physical network,
// with the settings of sriov-cni. What its driver refuses fails the call, and after
// each the function is as it was.
func TestDebianFunctions(t *testing.T) {
	l := rig.New(t)
	pf, far := l.IGB()
	intent := nodeFile(1) + podFile(1, "web", "") + legacyPool("net", pf.Name, "vfs: 2, trusted: {matchLabels: {trust: full}}")
	s := newSite(l, t, "  multiNetwork: multus\n", intent+namespaceFile)
	h := s.machine(1)
	t.Cleanup(func() { _ = os.WriteFile("/sys/bus/pci/devices/"+pf.PCI+"/sriov_numvfs", []byte("0"), 0) })
	p := physical{s.start(t, h), pf, far, intent}
	p.has(t, pf, "igbvf igbvf")
	p.netns("web")
	l.Run("Untrusted", p.untrusted)
	l.Run("Settings", p.settings)
	l.Run("Wire", p.wire)
	l.Run("Refused", p.refused)
	l.Run("Killed", p.killed)
	l.Run("VFIO", func(t *testing.T) {
		p.run() // the one before ended with its subtest
		p.ready(t)
		rig.Modules(t, "vfio-pci")
		h.Write("intent/all.yaml", strings.Replace(intent, "vfs: 2,", "vfs: 2, driver: vfio-pci,", 1)+namespaceFile)
		p.has(t, pf, "vfio-pci vfio-pci")
		p.userspace(t)
	})
}

// call is one for the pod's second interface, on the first function.
func (p physical) call(fields string) call {
	return call{pod: "web", ifname: "net1", config: physicalConfig(p.pf.VFPCI(0), fields)}
}

// add calls ADD until it succeeds.
func (p physical) add(t *testing.T, c call) {
	t.Helper()
	c.command = "ADD"
	rig.Wait(t, "ADD", func() error { _, err := p.cni(c); return err })
}

// same fails the test unless the function is as it was.
func (p physical) same(t *testing.T, show, netdev string) {
	t.Helper()
	if now := p.pf.Show(0); now != show {
		t.Errorf("the PF shows\n%s\nand before\n%s", now, show)
	}
	if now := p.pf.VFName(0); now != netdev {
		t.Errorf("the function is %s, and was %s", now, netdev)
	}
}

// untrusted: what lets a pod speak in the name of others is for namespaces of the pool's.
func (p physical) untrusted(t *testing.T) {
	p.declare("other")
	c := p.call(`"trust":"on"`)
	c.command = "ADD"
	rig.Wait(t, "a refusal of trust", func() error {
		said, err := p.cni(c)
		if err == nil || !strings.Contains(said, "namespace default is not trusted with device") {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	})
	p.del(t, c) // of a call before the agent had read the label
	p.declare("full")
}

func (p physical) settings(t *testing.T) {
	show, netdev := p.pf.Show(0), p.pf.VFName(0)
	c := p.call(`"vlan":100,"vlanQoS":3,"mac":"02:00:00:00:aa:01","spoofchk":"off","trust":"on","max_tx_rate":100`)
	p.add(t, c)
	for _, want := range []string{"02:00:00:00:aa:01", "vlan 100", "qos 3", "spoof checking off", "trust on", "max_tx_rate 100Mbps"} {
		if now := p.pf.Show(0); !strings.Contains(now, want) {
			t.Errorf("the PF shows %q: no %q", now, want)
		}
	}
	if text := p.Run("ip", "-n", "web", "link", "show", "net1"); !strings.Contains(text, "02:00:00:00:aa:01") {
		t.Errorf("in the pod: %s", text)
	}
	p.del(t, c)
	p.same(t, show, netdev)
}

// wire looks at the frames of a pod at the other end of the NIC's cable.
func (p physical) wire(t *testing.T) {
	for _, tt := range []struct {
		fields string
		vlan   int
	}{{"", 0}, {`"vlan":200`, 200}} {
		c := p.call(tt.fields)
		p.add(t, c)
		listener, err := rig.Listen(p.far.Name)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("of VLAN %d", tt.vlan)
		stop := p.repeat(t, text)
		frames, err := listener.Until(text, quiet)
		stop()
		listener.Close()
		if err != nil || frames[len(frames)-1].VLAN != tt.vlan {
			t.Errorf("%s: the wire has %v, %v", tt.fields, frames, err)
		}
		p.del(t, c)
	}
}

// repeat sends a frame from the pod again and again until stop: a link takes its time.
func (p physical) repeat(t *testing.T, text string) (stop func()) {
	t.Helper()
	pod := &rig.Pod{Host: p.Host, Name: "web"}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_ = pod.In(func() error {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for {
				_ = rig.Send("net1", mac("02:00:00:00:aa:02"), mac("ff:ff:ff:ff:ff:ff"), text)
				select {
				case <-done:
					return nil
				case <-tick.C:
				}
			}
		})
	}()
	return func() { close(done); <-ended }
}

// refused is what this driver does not do.
func (p physical) refused(t *testing.T) {
	show, netdev := p.pf.Show(0), p.pf.VFName(0)
	for fields, want := range map[string]string{
		`"min_tx_rate":10,"max_tx_rate":100`: "tx_rate of VF 0",
		`"link_state":"disable"`:             "link_state of VF 0",
		`"vlan":100,"vlanProto":"802.1ad"`:   "vlan of VF 0",
	} {
		c := p.call(fields)
		c.command = "ADD"
		said, err := p.cni(c)
		t.Logf("%s: %s", fields, strings.TrimSpace(said))
		if err == nil || !strings.Contains(said, want) || !strings.Contains(said, "driver igb refuses it") {
			t.Errorf("%s: %v: %s; want an error that names %s and the driver", fields, err, said, want)
		}
		p.del(t, c)
		p.same(t, show, netdev)
	}
}

// killed: an agent that is killed while a pod has a function takes it back all the same.
func (p physical) killed(t *testing.T) {
	show, netdev := p.pf.Show(0), p.pf.VFName(0)
	c := p.call(`"vlan":300,"mac":"02:00:00:00:aa:03"`)
	p.add(t, c)
	p.kill()
	p.run()
	p.ready(t)
	p.del(t, c)
	p.same(t, show, netdev)
}

// userspace: a function without a network device has its MAC and VLAN by the PF alone.
func (p physical) userspace(t *testing.T) {
	show := p.pf.Show(0)
	c := p.call(`"vlan":400,"mac":"02:00:00:00:aa:04"`)
	p.add(t, c)
	if now := p.pf.Show(0); !strings.Contains(now, "vlan 400") || !strings.Contains(now, "02:00:00:00:aa:04") {
		t.Errorf("the PF shows %q", now)
	}
	p.del(t, c)
	if now := p.pf.Show(0); now != show {
		t.Errorf("the PF shows\n%s\nand before\n%s", now, show)
	}
}
