package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// DefaultSocket is where portolan-node listens.
const DefaultSocket = "/run/portolan/cni.sock"

// MaxMessage bounds a call and a reply, in bytes: a GC call lists every
// attachment of a node, about 100 bytes each.
const MaxMessage = 4 << 20

// Commands of the CNI specification, section 2.
const (
	Add     = "ADD"
	Del     = "DEL"
	Check   = "CHECK"
	Status  = "STATUS"
	GC      = "GC"
	Version = "VERSION"
)

// Versions are the CNI versions spoken, oldest first. Debian's containerd 1.6
// refuses a result of 1.1.0, so what is answered is what was asked.
func Versions() []string { return []string{"0.4.0", "1.0.0", "1.1.0"} }

// Supported reports whether a CNI version is spoken.
func Supported(version string) bool { return slices.Contains(Versions(), version) }

// Call is one execution of the plugin: its environment and its stdin.
type Call struct {
	Command     string          `json:"command"`     // CNI_COMMAND
	ContainerID string          `json:"containerID"` // CNI_CONTAINERID
	Netns       string          `json:"netns"`       // CNI_NETNS, a path; may be empty in DEL
	IfName      string          `json:"ifName"`      // CNI_IFNAME
	Args        string          `json:"args"`        // CNI_ARGS, "K=V;K=V"
	Config      json.RawMessage `json:"config"`      // stdin
}

// Reply is the answer: a result to print, or an error. Both empty is success
// without output.
type Reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// Error codes of the CNI specification, "Error"; from 100 they are our own.
const (
	CodeVersion       uint = 1   // the config's version is not spoken
	CodeEnvironment   uint = 4   // a variable is missing or wrong
	CodeIO            uint = 5   // the config could not be read
	CodeDecode        uint = 6   // the config is no JSON
	CodeConfig        uint = 7   // the config is wrong
	CodeNetns         uint = 8   // the namespace is not there
	CodeTryAgain      uint = 11  // passing: the runtime should repeat the call
	CodeUnavailable   uint = 50  // STATUS: no ADD can be served
	CodeDisconnected  uint = 51  // STATUS: nor may existing pods have full connectivity
	CodeFailed        uint = 100 // a stage of the call failed
	CodeInconsistent  uint = 101 // CHECK found something amiss
	CodeNoAddressLeft uint = 102 // the node's subnet is full
)

// Error is a CNI error.
type Error struct {
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details,omitempty"` // what to look at
}

// Error joins message and details.
func (e *Error) Error() string {
	if e.Details == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Details
}

// Errorf makes an Error.
func Errorf(code uint, format string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(format, args...)}
}

// Print writes the error as the runtime reads it on stdout.
func (e *Error) Print(w io.Writer, version string) error {
	out := struct {
		CNIVersion string `json:"cniVersion"`
		*Error
	}{version, e}
	return json.NewEncoder(w).Encode(out)
}

// Write sends a message: one line of JSON.
func Write(w io.Writer, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// Read receives a message of at most MaxMessage bytes.
func Read(r io.Reader, message any) error {
	line, err := bufio.NewReader(io.LimitReader(r, MaxMessage)).ReadBytes('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return json.Unmarshal(line, message)
}

// Do makes one call. An error that is not the reply's own means that
// portolan-node could not be reached or went away before it answered.
func Do(ctx context.Context, socket string, call *Call) (*Reply, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	} else {
		_ = conn.SetDeadline(time.Time{})
	}
	if err := Write(conn, call); err != nil {
		return nil, err
	}
	reply := new(Reply)
	if err := Read(conn, reply); err != nil {
		return nil, fmt.Errorf("portolan-node went away before it answered: %w", err)
	}
	return reply, nil
}
