//go:build kernel

package host_test

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// TestTunnelsPassTheGateway sends Geneve to the node and waits for Geneve from
// it: an ARP request for the management port, wrapped by hand, and its answer.
func TestTunnelsPassTheGateway(t *testing.T) {
	wire(t)
	v := startOVS(t)
	a := startAgent(t, v, t.TempDir())
	bridges(v)
	v.vsctl("--no-wait add-port br-int gnv0 -- set interface gnv0 type=geneve options:remote_ip=172.18.0.1 options:key=5")
	a.taken()
	patch(v)
	a.flows()
	for len(a.loaded) > 0 {
		<-a.loaded
	}

	var in net.PacketConn
	err := inNS(t, "pth-peer", func() (err error) { in, err = net.ListenPacket("udp4", "172.18.0.1:6081"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	mac := []byte{0x0a, 0x58, 10, 244, 2, 5}
	request := bytes.Join([][]byte{
		{0, 0, 0x65, 0x58, 0, 0, 5, 0},                          // Geneve, Ethernet, VNI 5
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, {0x08, 0x06}, // Ethernet
		{0, 1, 8, 0, 6, 4, 0, 1}, mac, {10, 244, 1, 9}, make([]byte, 6), // ARP: who has
		{10, 244, 1, 2},
	}, nil)
	deadline := time.Now().Add(10 * time.Second)
	buf := make([]byte, 2000)
	for time.Now().Before(deadline) {
		if _, err := in.WriteTo(request, &net.UDPAddr{IP: net.IPv4(172, 18, 0, 2), Port: 6081}); err != nil {
			t.Fatal(err)
		}
		_ = in.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		for {
			n, _, err := in.ReadFrom(buf)
			if err != nil {
				break
			}
			if n >= 50 && bytes.Equal(buf[8:14], mac) && bytes.Equal(buf[20:22], []byte{8, 6}) && buf[29] == 2 {
				return
			}
		}
	}
	t.Fatal("no ARP reply through the tunnel within 10 s")
}
