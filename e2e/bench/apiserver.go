package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// apiServer answers what Multus asks of one: a pod, definitions, and that a
// network-status and an Event are written. It answers at once and keeps nothing: what
// a real one takes would be Multus' time, and is not in it.
type apiServer struct {
	kubeconfig string

	mu          sync.Mutex // guards the rest
	pods        map[string]object
	definitions map[string]object
}

type object map[string]any

// startAPI serves until the program ends.
func startAPI(dir string) (*apiServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	a := &apiServer{kubeconfig: filepath.Join(dir, "kubeconfig"), pods: map[string]object{}, definitions: map[string]object{}}
	go func() { _ = http.Serve(l, a) }()
	return a, os.WriteFile(a.kubeconfig, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"ptb",
		"clusters":[{"name":"ptb","cluster":{"server":"http://%s"}}],"users":[{"name":"ptb","user":{}}],
		"contexts":[{"name":"ptb","context":{"cluster":"ptb","user":"ptb"}}]}`, l.Addr()), 0o600)
}

// putPod makes a pod that names definitions.
func (a *apiServer) putPod(s sandbox, networks string) {
	meta := object{"namespace": "ptb", "name": s.pod, "uid": uidOf(s), "resourceVersion": "1"}
	if networks != "" {
		meta["annotations"] = object{"k8s.v1.cni.cncf.io/networks": networks}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods[s.pod] = object{"apiVersion": "v1", "kind": "Pod", "metadata": meta,
		"spec": object{"nodeName": nodeName, "containers": []object{{"name": "c", "image": "i"}}}, "status": object{"phase": "Pending"}}
}

func (a *apiServer) deletePod(s sandbox) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pods, s.pod)
}

func (a *apiServer) putDefinition(name, config string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.definitions[name] = object{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": object{"namespace": "ptb", "name": name, "uid": "uid-" + name}, "spec": object{"config": config}}
}

// ServeHTTP implements http.Handler. A write is answered with what is there.
func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	found := object(nil)
	for i, p := range parts[:len(parts)-1] {
		switch p {
		case "pods":
			found = a.pods[parts[i+1]]
		case "network-attachment-definitions":
			found = a.definitions[parts[i+1]]
		}
	}
	code := http.StatusOK
	switch {
	case found != nil:
	case parts[len(parts)-1] == "events":
		found, code = object{"apiVersion": "v1", "kind": "Event", "metadata": object{"namespace": "ptb", "name": "e"}}, http.StatusCreated
	default:
		found, code = object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": http.StatusNotFound,
			"message": r.URL.Path + " not found"}, http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(found)
}
