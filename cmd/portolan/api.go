package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// apiCommand asks an agent as the other commands do, for people with curiosity and
// for programs. With --pipe it is the far end of those commands' connections.
func apiCommand() *cobra.Command {
	var o reach.Options
	var pipe bool
	cmd := &cobra.Command{
		Use:   "api PATH",
		Short: "Read one path of an agent's API",
		Long: `Api sends GET PATH to an agent and prints the answer as it is; its paths
are those of package inspect, such as /v1/status. With --pipe it copies its standard input to the
agent's socket and back, which is what the other commands run in the agent's pod.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case pipe && len(args) == 0:
				return pipeSocket(cmd.Context(), o.Socket, cmd.InOrStdin(), cmd.OutOrStdout())
			case pipe || len(args) != 1 || !strings.HasPrefix(args[0], "/"):
				return errors.New(`wanted a path that begins with "/", such as /v1/status`)
			}
			return get(cmd.Context(), o, args[0], cmd.OutOrStdout())
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&pipe, "pipe", false, "connect standard input and output to the socket")
	return cmd
}

// pipeSocket connects a socket with a pair of streams until the socket's side
// ends, or the input does.
func pipeSocket(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	if socket == "" {
		socket = reach.DefaultSocket
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, in)
		// The asker is gone: so is the need for an answer.
		_ = conn.Close()
	}()
	_, err = io.Copy(out, conn)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func get(ctx context.Context, o reach.Options, path string, out io.Writer) error {
	r, err := reach.Open(o)
	if err != nil {
		return err
	}
	a, err := r.Agent(ctx)
	if err != nil {
		return err
	}
	body, err := fetch(ctx, a, path)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(out, body)
	return err
}

// fetch reads a path of an agent. The caller closes the answer.
func fetch(ctx context.Context, a reach.Agent, path string) (io.ReadCloser, error) {
	if a.Err != nil {
		return nil, a.Err
	}
	u, err := url.Parse(path)
	if err != nil {
		return nil, err
	}
	return inspect.NewClient(a.Transport).Get(ctx, u.Path, u.Query())
}
