// Command portolan-cni is what the container runtime or Multus executes for
// each CNI call. It forwards the call to portolan-node over a unix socket and
// prints the answer: it knows no Kubernetes, and starts in a few milliseconds.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// version is set when the binary is built.
var version = "devel"

// config is what this program itself reads of the network configuration.
type config struct {
	CNIVersion string `json:"cniVersion"`
	Socket     string `json:"socket"` // of portolan-node; empty: wire.DefaultSocket
}

func main() {
	if len(os.Args) > 1 && (os.Args[1] == "--version" || os.Args[1] == "-version") {
		fmt.Println("portolan-cni", version)
		return
	}
	os.Exit(run(os.Getenv, os.Stdin, os.Stdout))
}

// run serves one call and returns the exit code.
func run(env func(string) string, stdin io.Reader, stdout io.Writer) int {
	call := &wire.Call{
		Command: env("CNI_COMMAND"), ContainerID: env("CNI_CONTAINERID"), Netns: env("CNI_NETNS"),
		IfName: env("CNI_IFNAME"), Args: env("CNI_ARGS"),
	}
	c, err := read(call, stdin)
	if err == nil {
		var out []byte
		if out, err = answer(call, c); err == nil {
			if len(out) > 0 {
				_, _ = stdout.Write(append(out, '\n'))
			}
			return 0
		}
	}
	var e *wire.Error
	if !errors.As(err, &e) {
		e = wire.Errorf(wire.CodeTryAgain, "%v", err)
	}
	_ = e.Print(stdout, c.CNIVersion)
	return 1
}

// read takes the configuration from stdin and checks what needs no agent.
func read(call *wire.Call, stdin io.Reader) (config, error) {
	c := config{CNIVersion: "1.0.0"}
	stdinBytes, err := io.ReadAll(io.LimitReader(stdin, wire.MaxMessage))
	if err != nil {
		return c, wire.Errorf(wire.CodeIO, "reading the network configuration from stdin: %v", err)
	}
	if err := json.Unmarshal(stdinBytes, &c); err != nil {
		return c, wire.Errorf(wire.CodeDecode, "the network configuration on stdin is not JSON: %v", err)
	}
	call.Config = stdinBytes
	if call.Command != wire.Version && !wire.Supported(c.CNIVersion) {
		return c, &wire.Error{
			Code: wire.CodeVersion, Msg: fmt.Sprintf("CNI version %q is not supported", c.CNIVersion),
			Details: fmt.Sprintf("set cniVersion to one of %v", wire.Versions()),
		}
	}
	return c, nil
}

// answer returns what to print.
func answer(call *wire.Call, c config) ([]byte, error) {
	switch call.Command {
	case wire.Version:
		return json.Marshal(struct {
			CNIVersion        string   `json:"cniVersion"`
			SupportedVersions []string `json:"supportedVersions"`
		}{c.CNIVersion, wire.Versions()})
	case wire.Add, wire.Del, wire.Check, wire.Status, wire.GC:
	case "":
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_COMMAND is not set: this program is executed by a container runtime")
	default:
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_COMMAND %q is not known", call.Command)
	}
	socket := c.Socket
	if socket == "" {
		socket = wire.DefaultSocket
	}
	reply, err := wire.Do(context.Background(), socket, call)
	if err != nil {
		return nil, unreachable(call.Command, socket, err)
	}
	if reply.Error != nil {
		return nil, reply.Error
	}
	return reply.Result, nil
}

func unreachable(command, socket string, err error) error {
	e := &wire.Error{
		Code: wire.CodeTryAgain, Msg: fmt.Sprintf("portolan-node is not running on this node: %v", err),
		Details: "look at the portolan-node pod of this node: its log, and whether it listens on " + socket,
	}
	if command == wire.Status {
		e.Code = wire.CodeUnavailable
	}
	return e
}
