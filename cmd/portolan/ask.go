package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// one is the client of the one agent that is meant.
func one(ctx context.Context, o reach.Options) (*inspect.Client, error) {
	r, err := reach.Open(o)
	if err != nil {
		return nil, err
	}
	if !r.Named() { // a zone of many nodes has one that all is asked of
		writer, err := writing(ctx, r)
		if err != nil {
			return nil, err
		}
		if len(writer) > 0 {
			return inspect.NewClient(writer[0].Transport), nil
		}
	}
	a, err := r.Agent(ctx)
	if err != nil {
		return nil, err
	}
	return inspect.NewClient(a.Transport), nil
}

// count is a number of things: 1 row, 2 rows.
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// writing is the controller that writes a zone of many nodes: the others hold the
// same, and stand by. None where each node is a zone.
func writing(ctx context.Context, r *reach.Reach) ([]reach.Agent, error) {
	controllers, err := r.Controllers(ctx)
	for _, c := range controllers {
		if c.Err != nil {
			continue
		}
		st, err := inspect.NewClient(c.Transport).Status(ctx)
		if err == nil && len(st.Databases) > 0 && st.Databases[0].Up {
			return []reach.Agent{c}, nil
		}
	}
	return nil, err
}

// each asks every agent that is meant, in order of node. An agent that has nothing
// to say of what was asked is passed over, unless all are. The answers that there
// are come with the errors.
func each[T any](ctx context.Context, o reach.Options, ask func(context.Context, string, *inspect.Client) (T, error)) ([]T, error) {
	r, err := reach.Open(o)
	if err != nil {
		return nil, err
	}
	agents, err := r.Agents(ctx)
	if err != nil {
		return nil, err
	}
	if !r.Named() {
		writer, err := writing(ctx, r)
		if err != nil {
			return nil, err
		}
		agents = append(slices.Clone(agents), writer...)
	}
	out := []T{}
	var errs, unknown []error
	for _, a := range agents {
		err := a.Err
		if err == nil {
			var v T
			if v, err = ask(ctx, a.Node, inspect.NewClient(a.Transport)); err == nil {
				out = append(out, v)
				continue
			}
		}
		var answer *inspect.AnswerError
		if errors.As(err, &answer) && answer.Code == http.StatusNotFound {
			unknown = append(unknown, err)
			continue
		}
		if a.Node != "" {
			err = fmt.Errorf("node %s: %w", a.Node, err)
		}
		errs = append(errs, err)
	}
	if len(out) == 0 && len(errs) == 0 && len(unknown) > 0 {
		errs = unknown[:1]
	}
	return out, errors.Join(errs...)
}
