package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// The bounds of asking a cluster: agents at once, and time for each.
const (
	askAtOnce   = 16
	askPatience = 20 * time.Second
)

// answered is what one process says of itself.
type answered struct {
	Node    string `json:"node,omitempty"` // empty for a zone's controller
	Process string `json:"process"`
	Pod     string `json:"pod,omitempty"`
	// Status is what it answered; nil when it did not, and then Error says why.
	Status *inspect.Status `json:"status,omitempty"`
	Error  string          `json:"error,omitempty"`
	// LastWords is the message of the node's NodeNetwork, where the agent does not answer.
	LastWords string `json:"lastWords,omitempty"`
}

// everybody lists the agents that are meant and, where they are all, the controllers
// of their zone.
func everybody(ctx context.Context, r *reach.Reach) ([]reach.Agent, error) {
	agents, err := r.Agents(ctx)
	if err != nil || r.Named() {
		return agents, err
	}
	controllers, err := r.Controllers(ctx)
	return slices.Concat(agents, controllers), err
}

// gather asks every process that is meant, several at once.
func gather(ctx context.Context, r *reach.Reach) ([]answered, error) {
	agents, err := everybody(ctx, r)
	if err != nil {
		return nil, err
	}
	out := make([]answered, len(agents))
	slots := make(chan struct{}, askAtOnce)
	var wg sync.WaitGroup
	for i, a := range agents {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out[i] = ask(ctx, a)
		})
	}
	wg.Wait()
	lastWords(ctx, r, out)
	return out, ctx.Err()
}

func ask(ctx context.Context, a reach.Agent) answered {
	rep := answered{Node: a.Node, Process: a.Process, Pod: a.Pod}
	if a.Err != nil {
		rep.Error = a.Err.Error()
		return rep
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	st, err := inspect.NewClient(a.Transport).Status(ctx)
	if err != nil {
		rep.Error = err.Error()
		return rep
	}
	rep.Status, rep.Process = &st, st.Process
	if rep.Node == "" {
		rep.Node = st.Node
	}
	return rep
}

// lastWords looks up what the agents that do not answer have said last. A cluster
// without the resource has nothing to say.
func lastWords(ctx context.Context, r *reach.Reach, reports []answered) {
	silent := false
	for _, rep := range reports {
		silent = silent || rep.Status == nil
	}
	if !silent || r.Local() {
		return
	}
	body, err := r.Raw(ctx, "/apis/"+v1alpha1.Group+"/v1alpha1/nodenetworks")
	if err != nil {
		return
	}
	defer body.Close()
	var list struct {
		Items []v1alpha1.NodeNetwork `json:"items"`
	}
	if json.NewDecoder(body).Decode(&list) != nil {
		return
	}
	for i := range reports {
		for _, nn := range list.Items {
			if reports[i].Status != nil || nn.Name != reports[i].Node {
				continue
			}
			for _, c := range nn.Status.Conditions {
				if c.Type == v1alpha1.ConditionReady && c.Message != "" {
					reports[i].LastWords = fmt.Sprintf("%s: %s", c.Reason, c.Message)
				}
			}
		}
	}
}
