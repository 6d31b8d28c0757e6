package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// experimental is an EtherType for experiments (IEEE 802): no stack answers it.
const experimental = 0x88b5

// Frame is a frame of the experimental type, as it was seen.
type Frame struct {
	Source, Destination net.HardwareAddr
	VLAN                int // 0: no tag
	Text                string
}

func (f Frame) String() string {
	return fmt.Sprintf("%s > %s vlan %d %q", f.Source, f.Destination, f.VLAN, f.Text)
}

// Listener sees the frames of the experimental type that a device receives.
type Listener struct{ fd int }

// Listen opens a listener on a device of the network namespace it is called in.
func Listen(device string) (*Listener, error) {
	fd, err := packetSocket(device)
	if err != nil {
		return nil, err
	}
	// The kernel takes tags off; this option tells them.
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, membership(device)))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Listener{fd}, nil
}

func membership(device string) *unix.PacketMreq {
	m := &unix.PacketMreq{Type: unix.PACKET_MR_PROMISC}
	if i, err := net.InterfaceByName(device); err == nil {
		m.Ifindex = int32(i.Index)
	}
	return m
}

// packetSocket is a raw socket on a device, for all types: a tagged frame's is another.
func packetSocket(device string) (int, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", device, err)
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// Close ends the listener.
func (l *Listener) Close() { unix.Close(l.fd) }

// Until gives the frames up to and with the first whose text is last. It is an
// error when that does not come within d: the frames before it may be some then.
func (l *Listener) Until(last string, d time.Duration) ([]Frame, error) {
	var out []Frame
	for deadline := time.Now().Add(d); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return out, fmt.Errorf("no frame %q within %s; before it: %v", last, d, out)
		}
		timeout := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return out, err
		}
		f, ok, err := l.receive()
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return out, err
		}
		if err == nil && ok {
			if out = append(out, f); f.Text == last {
				return out, nil
			}
		}
	}
}

// receive reads one frame; ok: it is of the experimental type, and was not sent by this host itself.
func (l *Listener) receive() (f Frame, ok bool, err error) {
	buf, oob := make([]byte, 2048), make([]byte, 256)
	n, oobn, _, from, err := unix.Recvmsg(l.fd, buf, oob, 0)
	if err != nil || n < 14 {
		return f, false, err
	}
	if ll, is := from.(*unix.SockaddrLinklayer); is && ll.Pkttype == unix.PACKET_OUTGOING {
		return f, false, nil
	}
	f.Destination, f.Source = append(net.HardwareAddr{}, buf[0:6]...), append(net.HardwareAddr{}, buf[6:12]...)
	kind, payload := binary.BigEndian.Uint16(buf[12:]), buf[14:n]
	if kind == unix.ETH_P_8021Q && len(payload) >= 4 {
		f.VLAN, kind, payload = int(binary.BigEndian.Uint16(payload)&0xfff), binary.BigEndian.Uint16(payload[2:]), payload[4:]
	} else if tag, tagged := auxTag(oob[:oobn]); tagged {
		f.VLAN = tag
	}
	if kind != experimental || len(payload) == 0 || int(payload[0]) > len(payload)-1 {
		return f, false, nil
	}
	f.Text = string(payload[1 : 1+payload[0]])
	return f, true, nil
}

// auxTag reads the tag from struct tpacket_auxdata (linux/if_packet.h).
func auxTag(oob []byte) (int, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= 20 {
			status, tci := binary.NativeEndian.Uint32(m.Data), binary.NativeEndian.Uint16(m.Data[16:])
			return int(tci & 0xfff), status&unix.TP_STATUS_VLAN_VALID != 0
		}
	}
	return 0, false
}

// Send sends a frame of the experimental type from a device of the network
// namespace it is called in.
func Send(device string, source, destination net.HardwareAddr, text string) error {
	fd, err := packetSocket(device)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := append(append([]byte{}, destination...), source...)
	frame = append(binary.BigEndian.AppendUint16(frame, experimental), byte(len(text)))
	frame = append(frame, text...)
	if short := 60 - len(frame); short > 0 {
		frame = append(frame, make([]byte, short)...)
	}
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Halen: 6})
}
