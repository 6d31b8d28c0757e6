package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/presence"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// compileOptions are the flags of compile.
type compileOptions struct {
	files   []string
	tables  []string
	explain string
	out     output
}

// compiled is all that comes of files.
type compiled struct {
	Rows     []inspect.Row     `json:"rows"`
	Edges    []inspect.Edge    `json:"edges"`
	Problems []inspect.Problem `json:"problems"`
	Waiting  []inspect.Group   `json:"waiting"`
}

func compileCommand() *cobra.Command {
	var o compileOptions
	cmd := &cobra.Command{
		Use:   "compile -f FILE|DIR",
		Short: "Print the rows and edges that Kubernetes YAML compiles to",
		Long: `Compile reads Kubernetes objects from files, and a Cluster of portolan.io that
says which node's zone is meant, and prints what the databases would hold: rows
and shared elements, sorted, without UUIDs. Problems go to standard error; with
an error among them the exit status is 1.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "file, or directory of .yaml, .yml and .json files; may be repeated")
	f.StringSliceVarP(&o.tables, "table", "t", nil, "only these tables, e.g. NB:Logical_Switch_Port")
	f.StringVar(&o.explain, "explain", "", "print instead what a unit reads and says, e.g. pod/default/web")
	o.out.addFlag(f)
	_ = cmd.MarkFlagRequired("filename") // fails only for a flag that is not there
	return cmd
}

func (o compileOptions) run(ctx context.Context, out, errs io.Writer) error {
	text, err := read(o.files)
	if err != nil {
		return err
	}
	sh := script.New(script.Config{
		Kinds: compile.Kinds(), Door: kube.Decode, Lenient: true, Databases: script.Offline(rows.NB, rows.SB, rows.OVS),
	})
	objects, err := sh.Read(text)
	if err != nil {
		return err
	}
	networks := presence.New(sh) // of pods that are attached
	for _, object := range objects {
		networks.Put(object)
	}
	if err := sh.Settle(); err != nil {
		return err
	}
	server := inspect.NewServer(inspect.Source{Engine: sh.Engine(), Driver: inspect.Still{}, Ready: func() error { return nil }})
	switch {
	case o.explain != "" && o.out.format != "":
		x, err := server.Explain(ctx, o.explain)
		if err != nil {
			return err
		}
		if err := o.out.print(out, x, nil); err != nil {
			return err
		}
	case o.explain != "":
		kind, key, _ := strings.Cut(o.explain, "/")
		text, err := sh.Explain(engine.Unit{Kind: kind, Key: key})
		if err != nil {
			return err
		}
		fmt.Fprint(out, text)
	case o.out.format != "":
		all, err := o.gather(ctx, server, sh)
		if err != nil {
			return err
		}
		if err := o.out.print(out, all, nil); err != nil {
			return err
		}
	default:
		fmt.Fprint(out, sh.Rows(o.tables...))
	}
	return report(sh, errs)
}

// gather makes what programs read of what was compiled.
func (o compileOptions) gather(ctx context.Context, s *inspect.Server, sh *script.Shell) (compiled, error) {
	c := compiled{Rows: []inspect.Row{}, Edges: []inspect.Edge{}, Problems: []inspect.Problem{}}
	tables := o.tables
	if len(tables) == 0 {
		tables = []string{""}
	}
	for _, t := range tables {
		rs, err := s.Rows(ctx, inspect.Filter{Table: t})
		if err != nil {
			return c, err
		}
		es, err := s.Edges(ctx, inspect.Filter{Table: t})
		if err != nil {
			return c, err
		}
		c.Rows, c.Edges = append(c.Rows, rs...), append(c.Edges, es...)
	}
	st, err := s.Status(ctx)
	for _, p := range sh.Problems() {
		c.Problems = append(c.Problems, inspect.Problem{Object: p.Object, Field: p.Field, Severity: string(p.Severity), Message: p.Message})
	}
	c.Waiting = st.Groups
	return c, err
}

// report prints problems, and what would wait; an error among them is returned.
func report(sh *script.Shell, errs io.Writer) error {
	found := 0
	for _, p := range sh.Problems() {
		fmt.Fprintln(errs, script.FormatProblem(p))
		if p.Severity == rows.Error {
			found++
		}
	}
	for _, st := range sh.Engine().Statuses() {
		fmt.Fprintln(errs, st)
	}
	if n := sh.Engine().Stats().Bugs; n > 0 {
		return fmt.Errorf("%d bugs in units: rows left out", n)
	}
	if found > 0 {
		return fmt.Errorf("%d errors", found)
	}
	return nil
}

// read joins files, and those of directories in order of name, into one YAML text.
func read(paths []string) ([]byte, error) {
	var text []byte
	var errs []error
	for _, path := range paths {
		files, err := list(path)
		errs = append(errs, err)
		for _, file := range files {
			data, err := os.ReadFile(file)
			errs = append(errs, err)
			text = append(append(text, "\n---\n"...), data...)
		}
	}
	return text, errors.Join(errs...)
}

func list(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)) {
			files = append(files, file)
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no .yaml, .yml or .json file", path)
	}
	return files, err
}
