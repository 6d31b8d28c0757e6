package offload

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Path is where an agent answers questions about offload; Question is the query, and
// Report the answer.
const Path = "/v1/offload"

// Question is what is asked of a node.
type Question struct {
	// Pod is the pod whose interfaces are meant, NAMESPACE/NAME; "": all of the node.
	Pod string
	// Flows asks for a reading; without it the last one's answer is told, or what is
	// known without any.
	Flows bool
	// For is the time between two readings that are both made now; 0: one is made, and
	// its window is since the reading before. At most LongestFor.
	For time.Duration
	// Detail asks for TC's own counters of each device, and for the connections.
	Detail bool
}

// LongestFor bounds Question.For.
const LongestFor = 20 * time.Second

// Values is the question as a query.
func (q Question) Values() url.Values {
	v := url.Values{}
	if q.Pod != "" {
		v.Set("pod", q.Pod)
	}
	if q.For > 0 {
		v.Set("for", q.For.String())
	}
	for name, on := range map[string]bool{"flows": q.Flows, "detail": q.Detail} {
		if on {
			v.Set(name, "true")
		}
	}
	return v
}

// ParseQuestion reads a query.
func ParseQuestion(v url.Values) (Question, error) {
	q := Question{Pod: v.Get("pod"), Flows: v.Get("flows") == "true", Detail: v.Get("detail") == "true"}
	text := v.Get("for")
	if text == "" {
		return q, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > LongestFor {
		return q, fmt.Errorf("for=%s: wanted a time from 0s to %s", text, LongestFor)
	}
	q.For, q.Flows = d, true
	return q, nil
}

// Handler answers questions in JSON; a refusal is {"error": …}.
func Handler(answer func(context.Context, Question) (*Report, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		refuse := func(code int, err error) {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // else the asker has gone
		}
		q, err := ParseQuestion(r.URL.Query())
		if err != nil {
			refuse(http.StatusBadRequest, err)
			return
		}
		report, err := answer(r.Context(), q)
		switch {
		case err != nil:
			refuse(http.StatusServiceUnavailable, err)
			return
		case q.Pod != "" && len(report.Interfaces) == 0:
			refuse(http.StatusNotFound, fmt.Errorf("pod %s has no interface of Portolan's on this node", q.Pod))
			return
		}
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(report) // else the asker has gone
	})
}
