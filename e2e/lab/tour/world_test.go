package tour

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

func TestParseNodes(t *testing.T) {
	nodes, err := parseNodes(`{"items": [{
		"metadata": {"name": "ovn-worker", "annotations": {"k8s.ovn.org/node-subnets": "{\"default\":[\"10.244.1.0/24\"]}"}},
		"status": {"addresses": [{"type": "Hostname", "address": "ovn-worker"}, {"type": "InternalIP", "address": "172.18.0.2"}, {"type": "InternalIP", "address": "fc00::2"}],
			"conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}}, {
		"metadata": {"name": "other", "annotations": {"k8s.ovn.org/node-subnets": "{\"default\":[\"10.244.2.0/24\"]}"}},
		"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	n := nodes[0]
	if n.Name != "ovn-worker" || n.Path != "/run/netns/portolan-ovn-worker" || n.Addr.String() != "172.18.0.2" || n.mgmt.String() != "10.244.1.2" || !n.ready {
		t.Errorf("got %+v", n)
	}
	if nodes[1].ready {
		t.Error("a node whose readiness is unknown is taken for ready")
	}
	_, err = parseNodes(`{"items": [{"metadata": {"name": "n"}}]}`)
	if err == nil || !strings.Contains(err.Error(), "is Portolan the lab's network?") {
		t.Errorf("a node without a subnet: %v", err)
	}
}

func TestParsePods(t *testing.T) {
	pods, err := parsePods(`{"items": [
		{"metadata": {"name": "east"}, "spec": {"nodeName": "n1"}, "status": {"podIP": "10.244.1.3", "containerStatuses": [{"ready": true, "restartCount": 1}, {"ready": true, "restartCount": 2}]}},
		{"metadata": {"name": "west"}, "spec": {"nodeName": "n2"}, "status": {"podIP": "10.244.2.3", "containerStatuses": [{"ready": true}, {"ready": false}]}},
		{"metadata": {"name": "new"}, "spec": {"nodeName": "n2"}, "status": {"podIP": "10.244.2.4"}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	east, err := byName(pods, "east")
	if err != nil || east.node != "n1" || east.Addr.String() != "10.244.1.3" || !east.ready || east.restarts != 3 {
		t.Errorf("got %+v, %v", east, err)
	}
	if pods[1].ready || pods[2].ready {
		t.Errorf("a pod is ready when all of its containers are: %+v", pods)
	}
	if _, err := byName(pods, "south"); err == nil {
		t.Error("found a pod that is not there")
	}
	if _, err := parsePods(`{"items": [{"metadata": {"name": "east"}}]}`); err == nil {
		t.Error("a pod without an address is no error")
	}
}

func TestBoundTo(t *testing.T) {
	const text = "Chassis \"a-1\"\n    hostname: ovn-worker\n    Encap geneve\n        ip: \"172.18.0.2\"\n    Port_Binding demo_east2\n" +
		"Chassis \"b-2\"\n    hostname: \"ovn-worker2\"\n    Port_Binding \"demo_west\"\n"
	for port, want := range map[string]string{"demo_east2": "ovn-worker", "demo_west": "ovn-worker2", "demo_east": ""} {
		if got := boundTo(text, port); got != want {
			t.Errorf("%s is bound to %q, want %q", port, got, want)
		}
	}
}

// frameOf puts data into UDP, IPv4 and Ethernet.
func frameOf(src, dst string, data []byte) []byte {
	return packets.Frame{Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Dst: net.HardwareAddr{2, 0, 0, 0, 0, 2}}.
		UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), data)
}

func TestFrames(t *testing.T) {
	inside := frameOf("10.244.1.3:9", "10.244.2.3:9", make([]byte, 12))
	inside[14+9], inside[14+20] = icmp, 8
	geneve := []byte{0x02, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 1, 4, 5, 6, 7} // eight bytes of options
	outer, ok := ipv4Of(frameOf("172.18.0.2:5555", "172.18.0.4:6081", append(geneve, inside...)))
	if !ok || outer.src.String() != "172.18.0.2" || outer.dst.String() != "172.18.0.4" || outer.echoRequest() {
		t.Fatalf("outer: %+v, %v", outer, ok)
	}
	inner, ok := outer.inner()
	if !ok || inner.src.String() != "10.244.1.3" || inner.dst.String() != "10.244.2.3" || !inner.echoRequest() {
		t.Errorf("inner: %+v, %v", inner, ok)
	}
	other, _ := ipv4Of(frameOf("172.18.0.2:5555", "172.18.0.4:53", append(geneve, inside...)))
	if _, ok := other.inner(); ok {
		t.Error("a datagram to another port is taken for Geneve")
	}
	syn := frameOf("10.244.1.2:40000", "10.244.1.3:8080", make([]byte, 12))
	syn[14+9] = tcp
	for flags, want := range map[byte]bool{0x02: true, 0x12: false, 0x10: false} {
		syn[14+20+13] = flags
		if p, _ := ipv4Of(syn); p.asks(8080) != want || p.asks(80) {
			t.Errorf("flags %#x: asks for 8080 %v, for 80 %v", flags, p.asks(8080), p.asks(80))
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frameOf("172.18.0.2:5555", "172.18.0.4:6081", make([]byte, 60)))
	f.Fuzz(func(_ *testing.T, frame []byte) {
		p, ok := ipv4Of(frame)
		if !ok {
			return
		}
		p.asks(webPort)
		if inner, ok := p.inner(); ok {
			inner.echoRequest()
		}
	})
}
