package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/bundle"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
	"github.com/portolan-cni/portolan/pkg/tools"
	"github.com/portolan-cni/portolan/pkg/version"
)

func bundleCommand() *cobra.Command {
	var o reach.Options
	var file string
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Write all that helps to find a fault into one file",
		Long: `Support-bundle asks every node's agent, its databases and Open vSwitch, and the API
server for the logs of Portolan's containers, and writes a tar.gz. Private keys,
tokens and passwords are taken out of every part. What cannot be had is in the
bundle as NAME.error with the reason. Names, addresses and labels of nodes and
pods are in it: look before you give it away.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := reach.Open(o)
			if err != nil {
				return err
			}
			now := time.Now().UTC()
			root := "portolan-" + now.Format("20060102-150405")
			if file == "" {
				file = root + ".tar.gz"
			}
			return writeBundle(cmd.Context(), r, file, root, cmd.OutOrStdout())
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` to write; -: standard output; default: portolan-TIME.tar.gz here")
	return cmd
}

func writeBundle(ctx context.Context, r *reach.Reach, file, root string, stdout io.Writer) (err error) {
	out := stdout
	if file != "-" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	w := bundle.New(out, root, time.Now())
	if err := fill(ctx, r, w); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if file != "-" {
		fmt.Fprintf(stdout, "%s: %d parts, of which %d could not be had\n", file, w.Parts, w.Errors)
	}
	return nil
}

// fill adds every part. Only a bundle that cannot be written is an error.
func fill(ctx context.Context, r *reach.Reach, w *bundle.Writer) error {
	text := func(s string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
	}
	if err := w.Add("version", text(version.String()+"\n")); err != nil {
		return err
	}
	agents, err := everybody(ctx, r)
	if err != nil {
		return err
	}
	for _, a := range agents {
		dir := "nodes/" + a.Node
		if a.Node == "" {
			dir = "zone/" + cmp.Or(a.Pod, "this")
		}
		if err := fillNode(ctx, w, dir+"/", a); err != nil {
			return err
		}
	}
	if r.Local() {
		return nil
	}
	return fillCluster(ctx, r, w)
}

// fillNode adds what one agent says.
func fillNode(ctx context.Context, w *bundle.Writer, dir string, a reach.Agent) error {
	if a.Err != nil {
		return w.Add(dir+"agent", func() (io.ReadCloser, error) { return nil, a.Err })
	}
	c := inspect.NewClient(a.Transport)
	parts := [][2]string{
		{"status.json", inspect.PathStatus}, {"units.json", inspect.PathUnits}, {"rows.json", inspect.PathRows},
		{"edges.json", inspect.PathEdges}, {"diff.json", inspect.PathDiff}, {"config.json", inspect.PathConfig}, {"networks.json", inspect.PathNetworks},
		{"recording", inspect.PathRecord}, {"metrics", "/metrics"},
	}
	if a.Process != "portolan-controller" { // which has no node
		parts = append(parts, [2]string{"offload.json", offload.Path})
	}
	if names, err := lines(c.Get(ctx, tools.Path, nil)); err == nil {
		for _, name := range names {
			parts = append(parts, [2]string{"tools/" + name, tools.Path + "/" + url.PathEscape(name)})
		}
	}
	for _, p := range parts {
		if err := w.Add(dir+p[0], func() (io.ReadCloser, error) { return c.Get(ctx, p[1], nil) }); err != nil {
			return err
		}
	}
	return nil
}

func lines(body io.ReadCloser, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	return strings.Fields(string(text)), err
}

// namespacePods is as much of a list of pods as tells where logs are.
type namespacePods struct {
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Containers []struct {
				Name string `json:"name"`
			} `json:"containers"`
		} `json:"spec"`
		Status struct {
			ContainerStatuses []struct {
				Name         string `json:"name"`
				RestartCount int    `json:"restartCount"`
			} `json:"containerStatuses"`
		} `json:"status"`
	} `json:"items"`
}

// fillCluster adds what the API server has: objects, and logs of our containers.
func fillCluster(ctx context.Context, r *reach.Reach, w *bundle.Writer) error {
	ours := "/api/v1/namespaces/" + r.Namespace()
	raw := func(path string) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return r.Raw(ctx, path) }
	}
	for _, p := range [][2]string{
		{"cluster/nodes.json", "/api/v1/nodes"}, {"cluster/events.json", ours + "/events"},
		{"cluster/daemonsets.json", "/apis/apps/v1/namespaces/" + r.Namespace() + "/daemonsets"},
		{"cluster/deployments.json", "/apis/apps/v1/namespaces/" + r.Namespace() + "/deployments"},
		{"cluster/leases.json", "/apis/coordination.k8s.io/v1/namespaces/" + r.Namespace() + "/leases"},
		{"cluster/nodenetworks.json", "/apis/portolan.io/v1alpha1/nodenetworks"}, {"cluster/version.json", "/version"},
	} {
		if err := w.Add(p[0], raw(p[1])); err != nil {
			return err
		}
	}
	var text []byte
	list := func() (io.ReadCloser, error) {
		body, err := r.Raw(ctx, ours+"/pods")
		if err != nil {
			return nil, err
		}
		defer body.Close()
		text, err = io.ReadAll(body)
		return io.NopCloser(bytes.NewReader(text)), err
	}
	if err := w.Add("cluster/pods.json", list); err != nil {
		return err
	}
	var pods namespacePods
	if err := json.Unmarshal(text, &pods); err != nil {
		return nil //nolint:nilerr // why there is no list stands in pods.json.error
	}
	return fillLogs(w, pods, ours, raw)
}

// logBytes bounds one container's log; the end is what counts.
const logBytes = 4 << 20

func fillLogs(w *bundle.Writer, pods namespacePods, ours string, raw func(string) func() (io.ReadCloser, error)) error {
	for _, p := range pods.Items {
		restarts := map[string]int{}
		for _, s := range p.Status.ContainerStatuses {
			restarts[s.Name] = s.RestartCount
		}
		for _, c := range p.Spec.Containers {
			path := fmt.Sprintf("%s/pods/%s/log?container=%s&timestamps=true&tailLines=20000&limitBytes=%d", ours, p.Metadata.Name, c.Name, logBytes)
			name := "logs/" + p.Metadata.Name + "/" + c.Name
			if err := w.Add(name, raw(path)); err != nil {
				return err
			}
			if restarts[c.Name] == 0 {
				continue
			}
			if err := w.Add(name+".previous", raw(path+"&previous=true")); err != nil {
				return err
			}
		}
	}
	return nil
}
