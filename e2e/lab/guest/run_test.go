package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/guest/link"
)

func TestCommandHasWhatTheGuestNeeds(t *testing.T) {
	p := Parts{QEMU: "/q", Vmlinuz: "/v", Image: "/i,1"}
	line := strings.Join(Machine{CPUs: 2, Memory: "2G", NICs: true}.command(p, files{"/r/initrd", "/r/serial", "/r/link"}, []link.Share{{Tag: "share0", Path: "/a,b"}}), " ")
	for _, want := range []string{
		"/q/usr/lib64/ld-linux-x86-64.so.2 --library-path /q/usr/lib/x86_64-linux-gnu /q/usr/bin/qemu-system-x86_64",
		"-kernel /v -initrd /r/initrd", "snapshot=on,file=/i,,1", "-device intel-iommu", "path=/a,,b -device virtio-9p-pci,fsdev=share0,mount_tag=share0",
		"-netdev hubport,id=cable1,hubid=0", "-device igb,bus=slot1,netdev=cable1,mac=52:54:00:00:00:02",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %s", want, line)
		}
	}
	if line := strings.Join(Machine{}.command(p, files{}, nil), " "); strings.Contains(line, "igb") {
		t.Errorf("without NICs: %s", line)
	}
}

// guestOf answers on the other end of a link as a guest does.
func guestOf(t *testing.T, frames func(w *link.Writer, r link.Request)) (listener net.Listener, s *session, out *bytes.Buffer) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "link")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		w := link.NewWriter(conn)
		if err := w.JSON(link.KindBooted, link.Booted{Kernel: "6.12"}); err != nil {
			t.Error(err)
		}
		_, text, err := link.Read(conn)
		var r link.Request
		if err = errors.Join(err, json.Unmarshal(text, &r)); err != nil {
			t.Error(err)
		}
		frames(w, r)
	}()
	out = &bytes.Buffer{}
	return listener, &session{run: Run{Argv: []string{"x", "y"}, Stdout: out, Stderr: out}, start: time.Now()}, out
}

func alive() *process { return &process{done: make(chan struct{})} }

func TestOutputAndExitCodeArePassedOn(t *testing.T) {
	listener, s, out := guestOf(t, func(w *link.Writer, r link.Request) {
		_ = w.Bytes(link.KindStdout, []byte(strings.Join(r.Argv, "+")))
		_ = w.Bytes(link.KindStderr, []byte(" e"))
		_ = w.JSON(link.KindExit, link.Exit{Code: 7})
	})
	code, err := s.talk(t.Context(), listener, alive())
	if err != nil || code != 7 || out.String() != "x+y e" || s.times.Kernel != "6.12" {
		t.Errorf("code %d, %v, output %q, kernel %q", code, err, out, s.times.Kernel)
	}
}

func TestAGuestThatEndsIsAnError(t *testing.T) {
	listener, s, _ := guestOf(t, func(*link.Writer, link.Request) {})
	if _, err := s.talk(t.Context(), listener, alive()); err == nil || !strings.Contains(err.Error(), "the guest ended before its command") {
		t.Errorf("got %v", err)
	}
}

func TestACommandThatCannotBeRunIsAnError(t *testing.T) {
	listener, s, _ := guestOf(t, func(w *link.Writer, _ link.Request) { _ = w.JSON(link.KindExit, link.Exit{Error: "not found"}) })
	if _, err := s.talk(t.Context(), listener, alive()); err == nil || err.Error() != "x: not found" {
		t.Errorf("got %v", err)
	}
}

func TestQEMUThatDoesNotStartIsNotWaitedFor(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "link"))
	if err != nil {
		t.Fatal(err)
	}
	q := alive()
	close(q.done)
	if _, err := accept(context.Background(), listener, q); err == nil || !strings.Contains(err.Error(), "QEMU did not start") {
		t.Errorf("got %v", err)
	}
}

func TestADynamicProgramIsRefusedAsPID1(t *testing.T) {
	err := static("/bin/sh")
	if err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("got %v", err)
	}
}

func TestDirectoriesOfKilledRunsGo(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dead := filepath.Join(os.TempDir(), runDirPrefix+"999999999-x") // above any pid_max
	if err := os.Mkdir(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	mine, err := runDir()
	if err != nil {
		t.Fatal(err)
	}
	again, err := runDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", dead, err)
	}
	for _, dir := range []string{mine, again} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

func TestTheSerialLogIsKeptWithItsEnd(t *testing.T) {
	dir := t.TempDir()
	serial, kept := filepath.Join(dir, "serial"), filepath.Join(dir, "log", "kept")
	if err := os.WriteFile(serial, []byte(strings.Repeat("boot\n", 50)+"Kernel panic\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := keepLog(serial, kept)
	if text, err := os.ReadFile(kept); err != nil || len(text) != 263 || !strings.Contains(said, kept) || !strings.HasSuffix(said, "Kernel panic") || strings.Count(said, "boot") != 14 {
		t.Errorf("%v, %d bytes, %q", err, len(text), said)
	}
}
