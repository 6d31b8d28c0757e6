package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// podObject is as much of a pod as is looked at.
type podObject struct {
	Metadata struct {
		Namespace     string            `json:"namespace"`
		Name          string            `json:"name"`
		UID           string            `json:"uid"`
		Annotations   map[string]string `json:"annotations"`
		ManagedFields []struct {
			Time   *time.Time      `json:"time"`
			Fields json.RawMessage `json:"fieldsV1"`
		} `json:"managedFields"`
	} `json:"metadata"`
	Spec struct {
		NodeName    string `json:"nodeName"`
		HostNetwork bool   `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase      string         `json:"phase"`
		Conditions []podCondition `json:"conditions"`
	} `json:"status"`
}

type podCondition struct {
	Type               string     `json:"type"`
	Status             string     `json:"status"`
	Message            string     `json:"message"`
	LastTransitionTime *time.Time `json:"lastTransitionTime"`
}

// readPod reads a pod from the API server.
func readPod(ctx context.Context, r *reach.Reach, name string) (*podObject, error) {
	namespace, pod, _ := strings.Cut(name, "/")
	var p podObject
	if err := object(ctx, r, "/api/v1/namespaces/"+url.PathEscape(namespace)+"/pods/"+url.PathEscape(pod), &p); err != nil {
		return nil, fmt.Errorf("pod %s: %w", name, err)
	}
	return &p, nil
}

// object reads a path of the API server into v.
func object(ctx context.Context, r *reach.Reach, path string, v any) error {
	body, err := r.Raw(ctx, path)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(v)
}

func (p *podObject) condition(kind string) (podCondition, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c, true
		}
	}
	return podCondition{}, false
}

// statuses are the entries of network-status; none of a nil pod, or where the text
// cannot be read.
func (p *podObject) statuses() []multus.Status {
	if p == nil {
		return nil
	}
	list, err := multus.ParseStatus(p.Metadata.Annotations[multus.StatusAnnotation])
	if err != nil {
		return nil
	}
	return list
}

// wrote is when an annotation's writer wrote last, as the API server says.
func (p *podObject) wrote(annotation string) *time.Time {
	for _, m := range p.Metadata.ManagedFields {
		if bytes.Contains(m.Fields, []byte(`"f:`+annotation+`"`)) {
			return m.Time
		}
	}
	return nil
}

// events adds the last warning that Kubernetes has of a pod of which Portolan knows
// nothing wrong.
func (f *podFinder) events(ctx context.Context, r *reach.Reach) {
	var list struct {
		Items []struct {
			Reason        string    `json:"reason"`
			Message       string    `json:"message"`
			LastTimestamp time.Time `json:"lastTimestamp"`
		} `json:"items"`
	}
	path := "/api/v1/namespaces/" + url.PathEscape(f.object.Metadata.Namespace) + "/events?" +
		url.Values{"fieldSelector": {"involvedObject.uid=" + f.object.Metadata.UID + ",type=Warning"}}.Encode()
	if object(ctx, r, path, &list) != nil || len(list.Items) == 0 {
		return
	}
	last := list.Items[0]
	for _, e := range list.Items {
		if e.LastTimestamp.After(last.LastTimestamp) {
			last = e
		}
	}
	f.reason("Kubernetes says, %s ago: %s: %s", age(f.now.Sub(last.LastTimestamp).Seconds()), last.Reason, last.Message)
}
