package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// reportOf is a node's with a pod on a function of a NIC, and one on a veth pair.
func reportOf() *offload.Report {
	at := time.Date(2026, 11, 26, 12, 0, 30, 0, time.UTC)
	return &offload.Report{
		Datapath: offload.SystemDatapath, Switch: offload.SwitchReport{Running: true, HWOffload: true, Active: true},
		Window:  &offload.Window{From: at.Add(-30 * time.Second), To: at, Seconds: 30},
		Reading: offload.Reading{At: at, Flows: 14, Milliseconds: 3.25}, Reasons: []offload.Reason{},
		Interfaces: []offload.InterfaceReport{
			{
				Attached: offload.Attached{Port: "pf0vf0", Pod: "demo/fast", Interface: "net1", Network: "blue"}, Device: offload.Device{Kind: offload.Representor},
				Verdict: offload.Partly,
				From:    offload.Shares{Hardware: offload.Share{Flows: 3, Packets: 999_999}, TC: offload.Share{Flows: 1, Packets: 1}},
				To:      offload.Shares{Hardware: offload.Share{Flows: 2, Packets: 1_000_000}},
				Reasons: []offload.Counted{{Reason: offload.Reason{Code: offload.EgressVeth, Detail: "veth1"}, Flows: 1, Packets: 1, Example: "22222222-0000-4000-8000-000000000003"}},
				TC:      &offload.TCCount{Filters: 4, InHardware: 3, Refused: 1, HardwarePackets: 999_000, SoftwarePackets: 1000},
			},
			{
				Attached: offload.Attached{Port: "veth1", Pod: "demo/slow", Interface: "eth0", Network: "default"}, Device: offload.Device{Kind: offload.Veth, Driver: "veth"},
				Verdict: offload.InSoftware, To: offload.Shares{TC: offload.Share{Flows: 1, Packets: 1}},
				Reasons: []offload.Counted{{Reason: offload.Reason{Code: offload.NoDevice, Detail: "veth"}}},
			},
		},
		Connections: &offload.Connections{Known: true, All: 7, Hardware: 4},
	}
}

func TestOffloadForPeople(t *testing.T) {
	r := reportOf()
	var b bytes.Buffer
	printOffload(&b, []nodeOffload{
		{Node: "n1", Report: r, Explanations: meanings(r)},
		{Node: "n2", Error: "the pod is not running"},
	}, true)
	const want = `n1: datapath system@ovs-system, hw-offload on, 14 flows read in 3.2 ms, packets of the last 30s, 7 connections, 4 in hardware, 0 in a flow table of software
POD        INTERFACE  PORT    DEVICE       PACKETS ARE         PACKETS  HARDWARE  TC     KERNEL  USERSPACE  FLOWS  IN HARDWARE  WHY NOT
demo/fast  net1       pf0vf0  representor  partly in hardware  2000000  99.9%     0.0%   0.0%    0.0%       6      5            egress-veth
demo/slow  eth0       veth1   veth         in software         1        0.0%      100%   0.0%    0.0%       1      0            no-device

POD        INTERFACE  WHY NOT              FLOWS  PACKETS  ONE FLOW
demo/fast  net1       egress-veth (veth1)  1      1        22222222-0000-4000-8000-000000000003
demo/fast  net1       (TC: 3 of 4 filters in hardware, 1 refused; 999000 packets by hardware, 1000 by software)
demo/slow  eth0       no-device (veth)     all    -        -

n2: no answer: the pod is not running

`
	got, rest, _ := strings.Cut(b.String(), "no-device: ")
	if got = squeeze(got); got != squeeze(want) {
		t.Errorf("found\n%s\nwanted\n%s", got, want)
	}
	if !strings.Contains(rest, "egress-veth: Packets leave to a veth pair") || !strings.Contains(rest, "\n  Let the pod request a device") {
		t.Errorf("explained: %s", rest)
	}
}

// squeeze leaves column widths out of a comparison.
func squeeze(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return strings.TrimSpace(out.String())
}

// agentAt serves an agent's API on a socket.
func agentAt(t *testing.T, answer func(context.Context, offload.Question) (*offload.Report, error)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "portolan")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+offload.Path, offload.Handler(answer))
	server := &http.Server{Handler: mux}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(l) }()
	return path
}

func TestOffloadAsksItsAgent(t *testing.T) {
	var asked []offload.Question
	path := agentAt(t, func(_ context.Context, q offload.Question) (*offload.Report, error) {
		asked = append(asked, q)
		return reportOf().Of(q.Pod), nil
	})
	run := func(args ...string) (string, error) {
		cmd := offloadCommand()
		var b bytes.Buffer
		cmd.SetOut(&b)
		cmd.SetArgs(append(args, "--socket", path))
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		err := cmd.Execute()
		return b.String(), err
	}
	out, err := run("demo/slow", "--for", "5s", "--detail")
	if err != nil || strings.Contains(out, "demo/fast") || !strings.Contains(out, "demo/slow") {
		t.Errorf("%v: %s", err, out)
	}
	if want := (offload.Question{Pod: "demo/slow", Flows: true, For: 5 * time.Second, Detail: true}); len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %+v, wanted %+v", asked, want)
	}
	if out, err = run("-o", "yaml"); err != nil || !strings.Contains(out, "code: egress-veth") || !strings.Contains(out, "cure: ") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err = run("demo/none"); err == nil || !strings.Contains(err.Error(), "pod demo/none has no interface") {
		t.Errorf("found %v", err)
	}
	if _, err = run("--for", "1h"); err == nil || !strings.Contains(err.Error(), "from 0s to 20s") {
		t.Errorf("found %v", err)
	}
}

// TestPodsViewSaysWherePacketsAre joins what the agent says; an agent that cannot say
// it changes nothing of why a pod does not start.
func TestPodsViewSaysWherePacketsAre(t *testing.T) {
	path := agentAt(t, func(_ context.Context, q offload.Question) (*offload.Report, error) { return reportOf().Of(q.Pod), nil })
	i := whole("demo/blue", "net1")
	i.Port = "pf0vf0"
	f := podFinder{report: podReport{Pod: "demo/fast", Interfaces: []interfaceReport{}, Reasons: []string{}}, agent: inspect.Pod{Interfaces: []inspect.PodInterface{i}}, known: true, now: noon()}
	f.offloaded(t.Context(), reach.Agent{Transport: inspect.Unix(path)})
	f.conclude()
	var b bytes.Buffer
	f.report.write(&b)
	if want := "moved net1: partly in hardware in the 30s before 12:00:30: egress-veth\n"; !strings.Contains(b.String(), want) {
		t.Errorf("found %s, wanted %s", b.String(), want)
	}
	f.places = nil
	f.offloaded(t.Context(), reach.Agent{Transport: inspect.Unix(path + "x")})
	if f.places != nil || len(f.report.Reasons) != 0 {
		t.Errorf("%+v", f)
	}
}
