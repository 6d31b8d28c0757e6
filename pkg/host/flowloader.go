package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// FlowLoader keeps a bridge's flow table. It loads on a change and when vswitchd
// has started, which it sees from its connection to the bridge: vswitchd forgets
// flows exactly when that breaks. It never loads for time's sake.
type FlowLoader struct {
	// Command makes the ovs-ofctl command; nil: the program of that name.
	Command func(ctx context.Context, args ...string) *exec.Cmd
	// Loaded, if set, is told after each load.
	Loaded func()

	bridge   string
	socket   string
	log      *slog.Logger
	declared *latest[string]
	current  atomic.Bool // vswitchd has what was declared last
}

// NewFlowLoader makes a loader for a bridge whose vswitchd has its sockets in
// runDir (/run/openvswitch).
func NewFlowLoader(bridge, runDir string, log *slog.Logger) *FlowLoader {
	return &FlowLoader{bridge: bridge, socket: filepath.Join(runDir, bridge+".mgmt"), log: log, declared: newLatest[string]()}
}

// Times of the loader.
const (
	redial      = 20 * time.Millisecond // a unix socket; vswitchd is down for a second
	reloadAfter = time.Second           // when ovs-ofctl failed
)

// Declare gives the whole flow table; it returns at once. Until the first call
// the bridge is left as it is.
func (f *FlowLoader) Declare(text string) { f.declared.put(text) }

// Run loads flows until ctx ends.
func (f *FlowLoader) Run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := net.Dial("unix", f.socket)
		if err == nil {
			f.serve(ctx, conn)
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
}

// serve loads flows while the connection to the bridge stands.
func (f *FlowLoader) serve(ctx context.Context, conn net.Conn) {
	gone := make(chan struct{})
	go func() { // ends with conn
		defer close(gone)
		keepOpenFlow(conn)
	}()
	defer func() { f.current.Store(false); conn.Close(); <-gone }()
	for {
		var retry <-chan time.Time
		if text, version := f.declared.get(); version > 0 {
			if err := f.load(ctx, text); err != nil {
				f.current.Store(false)
				f.log.Error("bridge flows not loaded", "bridge", f.bridge, "error", err)
				retry = time.After(reloadAfter)
			} else {
				f.current.Store(true)
				if f.Loaded != nil {
					f.Loaded()
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-gone:
			return
		case <-f.declared.changed():
		case <-retry:
		}
	}
}

// Current reports whether vswitchd has been given, since its start, what was
// declared last.
func (f *FlowLoader) Current() bool { return f.current.Load() }

func (f *FlowLoader) command(ctx context.Context, args ...string) *exec.Cmd {
	if f.Command != nil {
		return f.Command(ctx, args...)
	}
	return exec.CommandContext(ctx, "ovs-ofctl", args...)
}

// Flows counts the flows of another bridge of the same vswitchd.
func (f *FlowLoader) Flows(ctx context.Context, bridge string) (int, error) {
	out, err := f.command(ctx, "-O", "OpenFlow15", "dump-aggregate", "unix:"+filepath.Join(filepath.Dir(f.socket), bridge+".mgmt")).Output()
	if err != nil {
		return 0, fmt.Errorf("ovs-ofctl dump-aggregate %s: %w", bridge, err)
	}
	_, count, ok := strings.Cut(string(out), "flow_count=")
	if !ok {
		return 0, fmt.Errorf("ovs-ofctl dump-aggregate %s: no flow_count in %q", bridge, out)
	}
	return strconv.Atoi(strings.TrimSpace(count))
}

// load replaces the bridge's flows in one bundle.
func (f *FlowLoader) load(ctx context.Context, text string) error {
	cmd := f.command(ctx, "-O", "OpenFlow15", "--bundle", "replace-flows", "unix:"+f.socket, "-")
	cmd.Stdin = strings.NewReader(text)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ovs-ofctl replace-flows %s: %w: %s", f.bridge, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// OpenFlow message types (OpenFlow 1.5, 7.1.1).
const (
	openflow15      = 6
	ofHello         = 0
	ofEchoRequest   = 2
	ofEchoReply     = 3
	ofHeaderLen     = 8
	ofLargestAnswer = 1 << 16
)

// keepOpenFlow says hello and answers echo requests, without which the switch
// hangs up after a minute, until the connection ends.
func keepOpenFlow(conn io.ReadWriter) {
	hello := [ofHeaderLen]byte{0: openflow15, 1: ofHello, 3: ofHeaderLen}
	if _, err := conn.Write(hello[:]); err != nil {
		return
	}
	msg := make([]byte, ofLargestAnswer)
	for {
		if _, err := io.ReadFull(conn, msg[:ofHeaderLen]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(msg[2:]))
		if n < ofHeaderLen {
			return
		}
		if _, err := io.ReadFull(conn, msg[ofHeaderLen:n]); err != nil {
			return
		}
		if msg[1] != ofEchoRequest {
			continue
		}
		msg[1] = ofEchoReply
		if _, err := conn.Write(msg[:n]); err != nil {
			return
		}
	}
}
