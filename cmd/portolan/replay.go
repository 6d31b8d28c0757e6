package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
	"github.com/portolan-cni/portolan/pkg/record"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/version"
)

func recordCommand() *cobra.Command {
	var way reach.Options
	cmd := &cobra.Command{
		Use:   "record FILE",
		Short: "Save an agent's flight recorder: the last that its engine was given",
		Long: `Record writes to FILE what the engine of one agent was given lately and digests of what
it answered, from a checkpoint on, for portolan replay. The file holds what the
agent knows of the cluster: names, labels and addresses of nodes and pods.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := one(cmd.Context(), way)
			if err != nil {
				return err
			}
			return save(cmd.Context(), c, args[0])
		},
	}
	way.AddFlags(cmd.Flags())
	return cmd
}

func save(ctx context.Context, c *inspect.Client, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(c.Record(ctx, f), f.Close())
}

// replayOptions are the flags of replay.
type replayOptions struct {
	out    output
	at     int
	events bool
	txns   bool
	rows   bool
	tables []string
}

func replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run an engine on a recording again, and compare every answer",
		Long: `Replay runs an engine of this program from the recording's checkpoint through
all its steps, and compares each transaction with the digest in the file, and the engine with the
later checkpoint. The exit status is 0 when all are the same, 1 at a difference. With
--events and --txns it prints what each step was given and answered; with --rows what
the units want at the end, or after step --at.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			return o.run(f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	o.out.addFlag(f)
	f.IntVar(&o.at, "at", 0, "stop after this `step`")
	f.BoolVar(&o.events, "events", false, "print the events of each step; with --at, of that one")
	f.BoolVar(&o.txns, "txns", false, "print the transactions of each step; with --at, of that one")
	f.BoolVar(&o.rows, "rows", false, "print the rows that units want at the end")
	f.StringSliceVarP(&o.tables, "table", "t", nil, "of rows, only these tables")
	return cmd
}

// errEnough ends a replay that was to stop at a step.
var errEnough = errors.New("enough")

func (o replayOptions) run(in io.Reader, out, errs io.Writer) error {
	file, err := record.Open(in)
	if err != nil {
		return err
	}
	if here := version.String(); file.Header.Version != here {
		fmt.Fprintf(errs, "recorded by version %s, replayed by %s: what they compile may differ\n", file.Header.Version, here)
	}
	var last *engine.Engine
	report, err := record.Replay(file, compile.Kinds(), func(s record.Replayed) error {
		last = s.Engine
		if o.out.format == "" && (o.at == 0 || o.at == s.N) {
			o.step(out, s)
		}
		if s.N == o.at {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := o.out.print(out, report, func(w io.Writer) {
		if o.rows && last != nil {
			o.writeRows(w, last)
		}
		writeReport(w, report)
	}); err != nil {
		return err
	}
	if report.First > 0 {
		return exitCode(1)
	}
	return nil
}

func (o replayOptions) step(w io.Writer, s record.Replayed) {
	if o.events || o.txns {
		fmt.Fprintf(w, "step %d\n", s.N)
	}
	if o.events {
		for _, e := range s.Events {
			fmt.Fprintf(w, "  %s\n", eventText(e))
		}
	}
	if o.txns {
		for _, t := range s.Ready.Txns {
			fmt.Fprintf(w, "  %s\n", strings.ReplaceAll(strings.TrimSpace(t.String()), "\n", "\n  "))
		}
	}
	if s.Differs != "" {
		fmt.Fprintf(w, "step %d differs: %s\n", s.N, s.Differs)
	}
}

func (o replayOptions) writeRows(w io.Writer, e *engine.Engine) {
	for _, db := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		if len(e.Rows(db)) == 0 {
			continue
		}
		rs, es := e.Desired(db)
		out := func(t rows.Table) bool {
			return len(o.tables) > 0 && !slices.Contains(o.tables, string(t)) && !slices.Contains(o.tables, t.Name())
		}
		rs = slices.DeleteFunc(rs, func(r rows.Row) bool { return out(r.Table) })
		es = slices.DeleteFunc(es, func(x rows.Edge) bool { return out(x.Row.Table) })
		fmt.Fprint(w, rows.Format(rs, es))
	}
}

// eventText is an event on one line.
func eventText(e engine.Event) string {
	switch {
	case e.Put != nil:
		return "put " + e.Put.Key().String()
	case e.Delete != nil:
		return "delete " + e.Delete.String()
	case e.Synced:
		return "synced"
	case e.Snapshot != nil:
		return fmt.Sprintf("snapshot of %s, %d rows", e.Snapshot.DB, len(e.Snapshot.Rows))
	case e.Result != nil:
		return fmt.Sprintf("result of transaction %d in %s, %d groups failed, lost %t", e.Result.Txn, e.Result.DB, len(e.Result.Failed), e.Result.Lost)
	case e.Down != "":
		return "down " + string(e.Down)
	case e.Installed != 0:
		return fmt.Sprintf("installed %d", e.Installed)
	}
	return fmt.Sprintf("tick %d", e.Tick)
}

func writeReport(w io.Writer, r record.Report) {
	h := r.Header
	where := h.Process + " " + h.Node
	if h.Node == "" {
		where = h.Process + " of zone " + h.Zone
	}
	fmt.Fprintf(w, "%s, written %s: %s, %s, %s, %s, %s\n", where, h.Written.Format("2006-01-02 15:04:05Z"), count(r.Steps, "step"), count(r.Events, "event"),
		count(r.Transactions, "transaction"), count(r.Operations, "operation"), count(r.Checkpoints, "checkpoint"))
	if r.Open {
		fmt.Fprintln(w, "the process ended in the last step")
	}
	if r.First > 0 {
		fmt.Fprintf(w, "DIFFERENT first at step %d: %s\n", r.First, r.Differs)
		return
	}
	fmt.Fprintln(w, "every answer is the same, bit for bit")
}
