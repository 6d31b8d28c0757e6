// Package tools runs the tools of OVS and OVN that only look, for people who are
// somewhere else: the agent's containers have them, and the person has not.
//
//	GET /v1/tools         the names
//	GET /v1/tools/NAME    what the tool prints
//
// The list is fixed: nothing that is asked for becomes a part of a command line.
package tools

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// Path is where the tools are in an agent's API; Path + "/" + name runs one.
const Path = "/v1/tools"

// Databases are the endpoints that the tools ask.
type Databases struct {
	OVS, NB, SB string   // "" where the process has no access; OVS "": it serves no node
	TLS         []string // flags for ssl: endpoints
}

// Tool is one command that changes nothing.
type Tool struct {
	Name string // and of the file that its output goes to
	Argv []string
}

// List lists what can be asked.
func List(d Databases) []Tool {
	dump := func(endpoint, database string) []string {
		return append(append([]string{"ovsdb-client", "--timeout=30"}, d.TLS...), "dump", "--format=json", "--pretty", endpoint, database)
	}
	var list []Tool
	if d.OVS != "" {
		list = ofNode(d, dump(d.OVS, "Open_vSwitch"))
	}
	if d.NB != "" {
		list = append(list, Tool{"nb.json", dump(d.NB, "OVN_Northbound")})
	}
	if d.SB != "" {
		list = append(list, Tool{"sb.json", dump(d.SB, "OVN_Southbound")})
	}
	return list
}

// ofNode lists what is asked on a node.
func ofNode(d Databases, ovs []string) []Tool {
	return []Tool{
		{"ovs.json", ovs},
		{"ovs-show", []string{"ovs-vsctl", "--timeout=10", "--db=" + d.OVS, "show"}},
		{"flows-br-int", []string{"ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-int"}},
		{"flows-br-ex", []string{"ovs-ofctl", "-O", "OpenFlow15", "dump-flows", "br-ex"}},
		{"ports-br-int", []string{"ovs-ofctl", "-O", "OpenFlow15", "dump-ports-desc", "br-int"}},
		{"counters-br-int", []string{"ovs-ofctl", "-O", "OpenFlow15", "dump-ports", "br-int"}},
		{"datapath", []string{"ovs-appctl", "--timeout=10", "dpctl/show", "-s"}},
		{"datapath-flows", []string{"ovs-appctl", "--timeout=10", "dpctl/dump-flows", "-m"}},
		{"conntrack", []string{"ovs-appctl", "--timeout=10", "dpctl/ct-stats-show", "-m"}},
		{"coverage-vswitchd", []string{"ovs-appctl", "--timeout=10", "coverage/show"}},
		{"memory-vswitchd", []string{"ovs-appctl", "--timeout=10", "memory/show"}},
		{"ovn-controller", []string{"ovn-appctl", "--timeout=10", "-t", "ovn-controller", "connection-status"}},
		{"ovn-controller-ct-zones", []string{"ovn-appctl", "--timeout=10", "-t", "ovn-controller", "ct-zone-list"}},
		{"ovn-controller-engine", []string{"ovn-appctl", "--timeout=10", "-t", "ovn-controller", "inc-engine/show-stats"}},
		{"addresses", []string{"ip", "-d", "address"}},
		{"routes", []string{"ip", "route", "show", "table", "all"}},
		{"rules", []string{"ip", "rule"}},
		{"nftables", []string{"nft", "list", "ruleset"}},
	}
}

// patience bounds one tool; a southbound database of ten thousand ports takes seconds.
const patience = time.Minute

// Handler serves Path.
func Handler(d Databases) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, _ *http.Request) {
		for _, t := range List(d) {
			fmt.Fprintln(w, t.Name)
		}
	})
	mux.HandleFunc("GET "+Path+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		for _, t := range List(d) {
			if t.Name == r.PathValue("name") {
				run(w, r, t)
				return
			}
		}
		http.Error(w, "no tool "+r.PathValue("name")+"; "+Path+" lists them", http.StatusNotFound)
	})
	return mux
}

func run(w http.ResponseWriter, r *http.Request, t Tool) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Argv[0], t.Argv[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		http.Error(w, fmt.Sprintf("%s: %v: %s", strings.Join(t.Argv, " "), err, strings.TrimSpace(stderr.String())), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(out) // else the asker is gone
}
