package host_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/host"
)

// aSwitch listens where vswitchd would.
func aSwitch(t *testing.T, dir string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, "br-ex.mgmt"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var hello [8]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil || hello[0] != 6 || hello[1] != 0 {
		t.Fatalf("found %v, %v, wanted an OpenFlow 1.5 hello", hello, err)
	}
	return c
}

func TestFlowsAreLoadedOnChangeAndStart(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "loaded")
	loaded := make(chan string, 10)
	f := host.NewFlowLoader("br-ex", dir, slog.New(slog.DiscardHandler))
	f.Command = func(ctx context.Context, _ ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "dd", "status=none", "of="+out)
	}
	f.Loaded = func() { b, _ := os.ReadFile(out); loaded <- string(b) }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	defer func() { cancel(); <-done }()
	wait := func(want string) {
		t.Helper()
		select {
		case got := <-loaded:
			if got != want {
				t.Fatalf("found %q loaded, wanted %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q not loaded", want)
		}
	}

	f.Declare("one")
	l := aSwitch(t, dir)
	c := accept(t, l)
	wait("one")
	f.Declare("two")
	wait("two")
	echo(t, c)
	c.Close() // vswitchd dies
	l.Close()
	l = aSwitch(t, dir) // and starts
	defer l.Close()
	defer accept(t, l).Close()
	wait("two")
	select {
	case got := <-loaded:
		t.Errorf("%q loaded again without a reason", got)
	default:
	}
}

// echo checks that the switch finds its peer alive.
func echo(t *testing.T, c net.Conn) {
	t.Helper()
	msg := []byte{6, 2, 0, 12, 0, 0, 0, 7, 'p', 'i', 'n', 'g'}
	if _, err := c.Write(msg); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, msg); err != nil {
		t.Fatal(err)
	}
	if msg[1] != 3 || binary.BigEndian.Uint32(msg[4:]) != 7 || string(msg[8:]) != "ping" {
		t.Errorf("found %v, wanted the echo's reply", msg)
	}
}
