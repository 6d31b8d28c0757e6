package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"
)

// unixctlTimeout is for one call, should the caller have no shorter one: vswitchd
// answers between packets, from its main loop.
const unixctlTimeout = 10 * time.Second

// unixctlError is what a daemon says of a call that it does not do.
type unixctlError struct{ method, text string }

func (e *unixctlError) Error() string { return e.method + ": " + e.text }

// unixctl calls a method of an OVS or OVN daemon by its control socket: JSON-RPC
// with strings for parameters (ovs-appctl(8) speaks it). It returns what the
// daemon prints; a refusal is a *unixctlError.
func unixctl(ctx context.Context, socket, method string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, unixctlTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if args == nil {
		args = []string{}
	}
	request := struct {
		ID     int      `json:"id"`
		Method string   `json:"method"`
		Params []string `json:"params"`
	}{Method: method, Params: args}
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return "", fmt.Errorf("%s: call %s: %w", socket, method, err)
	}
	var reply struct {
		Result *string `json:"result"`
		Error  *string `json:"error"`
	}
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return "", fmt.Errorf("%s: answer of %s: %w", socket, method, err)
	}
	switch {
	case reply.Error != nil:
		return "", &unixctlError{method, strings.TrimSpace(*reply.Error)}
	case reply.Result == nil:
		return "", nil
	}
	return *reply.Result, nil
}
