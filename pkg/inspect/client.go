package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Client asks one process. How it is reached is the transport's business: a unix
// socket, or a stream through the API server.
type Client struct{ http *http.Client }

// NewClient makes a client over a transport that brings every request to one process,
// whatever host its URL names.
func NewClient(t http.RoundTripper) *Client { return &Client{&http.Client{Transport: t}} }

// Unix is the transport to a socket on this machine.
func Unix(path string) http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}

// AnswerError is an answer other than success.
type AnswerError struct {
	Code int // HTTP status
	Failure
}

// Error is what the process said, with what it might have been asked instead.
func (e *AnswerError) Error() string {
	text := e.Failure.Error
	if len(e.Candidates) > 0 {
		text += ": " + strings.Join(e.Candidates, ", ")
	}
	return text
}

// Status asks for PathStatus.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, PathStatus, nil)
}

// Units asks for PathUnits.
func (c *Client) Units(ctx context.Context) ([]Unit, error) {
	return get[[]Unit](ctx, c, PathUnits, nil)
}

// Rows asks for PathRows.
func (c *Client) Rows(ctx context.Context, f Filter) ([]Row, error) {
	return get[[]Row](ctx, c, PathRows, f.query())
}

// Edges asks for PathEdges.
func (c *Client) Edges(ctx context.Context, f Filter) ([]Edge, error) {
	return get[[]Edge](ctx, c, PathEdges, f.query())
}

// Explain asks where a row, unit or object comes from. A row is named as
// NB:Logical_Switch_Port(demo_east), Logical_Switch_Port/demo_east, by its id
// alone or by its UUID.
func (c *Client) Explain(ctx context.Context, what string) (Explanation, error) {
	return get[Explanation](ctx, c, PathExplain, url.Values{"q": {what}})
}

// Diff asks for PathDiff: every database is read afresh.
func (c *Client) Diff(ctx context.Context) (Diff, error) {
	return get[Diff](ctx, c, PathDiff, nil)
}

// Pod asks how far a pod, "namespace/name", has come.
func (c *Client) Pod(ctx context.Context, name string) (Pod, error) {
	return get[Pod](ctx, c, PathPod, url.Values{"name": {name}})
}

// Networks asks for PathNetworks.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	return get[[]Network](ctx, c, PathNetworks, nil)
}

// Config asks for PathConfig.
func (c *Client) Config(ctx context.Context) (Config, error) {
	return get[Config](ctx, c, PathConfig, nil)
}

// Plan asks what applying YAML would change or, with remove, what deleting its
// objects would.
func (c *Client) Plan(ctx context.Context, yaml []byte, remove bool) (Plan, error) {
	var p Plan
	var q url.Values
	if remove {
		q = url.Values{"delete": {"true"}}
	}
	body, err := c.do(ctx, http.MethodPost, PathPlan, q, yaml)
	if err != nil {
		return p, err
	}
	defer body.Close()
	return p, decode(body, &p)
}

// Record copies the flight recorder's file to w.
func (c *Client) Record(ctx context.Context, w io.Writer) error {
	body, err := c.do(ctx, http.MethodGet, PathRecord, nil, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.Copy(w, body)
	return err
}

// Get returns the raw answer of a path with a query, for paths that have no
// method here. The caller closes it.
func (c *Client) Get(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	return c.do(ctx, http.MethodGet, path, q, nil)
}

func (f Filter) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"unit": f.Unit, "table": f.Table, "database": f.Database} {
		if v != "" {
			q.Set(name, v)
		}
	}
	return q
}

func filterOf(q url.Values) Filter {
	return Filter{Unit: q.Get("unit"), Table: q.Get("table"), Database: q.Get("database")}
}

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	var v T
	body, err := c.do(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		return v, err
	}
	defer body.Close()
	return v, decode(body, &v)
}

func decode(r io.Reader, v any) error {
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("the answer cannot be read; is the process of another version? %w", err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, q url.Values, body []byte) (io.ReadCloser, error) {
	u := url.URL{Scheme: "http", Host: "portolan", Path: path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its URL names no place that exists
		}
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	fail := &AnswerError{Code: resp.StatusCode}
	if json.Unmarshal(text, &fail.Failure) != nil || fail.Failure.Error == "" {
		fail.Failure.Error = fmt.Sprintf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	return nil, fail
}
