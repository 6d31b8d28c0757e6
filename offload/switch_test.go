package offload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve answers each connection on a socket with what answer makes of its request.
func serve(t *testing.T, path string, answer func(request map[string]any) string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var request map[string]any
			if json.NewDecoder(bufio.NewReader(conn)).Decode(&request) == nil {
				fmt.Fprint(conn, answer(request))
			}
			conn.Close()
		}
	}()
}

// control serves a vswitchd in a run directory.
func control(t *testing.T, answer func(method string, params []any) string) Control {
	t.Helper()
	dir, err := os.MkdirTemp("", "offload") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "ovs-vswitchd.pid"), []byte("42\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, filepath.Join(dir, "ovs-vswitchd.42.ctl"), func(r map[string]any) string {
		return answer(r["method"].(string), r["params"].([]any))
	})
	return Control{RunDir: dir}
}

func said(text string) string {
	quoted, _ := json.Marshal(text)
	return `{"error":null,"id":0,"result":` + string(quoted) + "}"
}

func TestControlReadsAnswersAsTheyCome(t *testing.T) {
	text := dump(t, "mixed")
	for name, answer := range map[string]string{
		"result last":  said(text),
		"result first": strings.Replace(said(text), `"error":null,"id":0,`, "", 1),
		"with spaces":  "\n{ \"id\" : 0 , \"result\" : " + said(text)[len(`{"error":null,"id":0,"result":`):],
	} {
		c := control(t, func(method string, params []any) string {
			if method != "dpctl/dump-flows" || fmt.Sprint(params) != "[-m system@ovs-system]" {
				t.Errorf("%s %v", method, params)
			}
			return answer
		})
		n := 0
		for _, err := range c.Flows(context.Background(), SystemDatapath) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			n++
		}
		if n != 7 {
			t.Errorf("%s: %d flows", name, n)
		}
	}
}

func TestControlSaysWhatVswitchdSaid(t *testing.T) {
	for answer, want := range map[string]string{
		`{"error":"ovs-vswitchd: datapath not found (Invalid argument)\n","id":0,"result":null}`:                    "datapath not found",
		`{"id":0,"result":null,"error":"late"}`:                                                                     "late",
		`{"error":null,"id":0,"result":"recirc_id(0),in_port(2), packets:1, bytes:2, used:never, actions:drop\nrec`: "unexpected EOF",
		`what`: `'w' where '{'`,
		``:     "EOF",
	} {
		c := control(t, func(string, []any) string { return answer })
		var last error
		for _, err := range c.Flows(context.Background(), SystemDatapath) {
			last = err
		}
		if last == nil || !strings.Contains(last.Error(), want) {
			t.Errorf("%s: got %v, wanted %s", answer, last, want)
		}
	}
}

func TestControlStopsWithItsCaller(t *testing.T) {
	dir, err := os.MkdirTemp("", "offload")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "ovs-vswitchd.1.ctl")) // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(dir, "ovs-vswitchd.pid"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for _, err := range (Control{dir}).Flows(ctx, SystemDatapath) {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
}

func TestState(t *testing.T) {
	const shown = "netdev@ovs-netdev:\n  flows         : (current 8) (avg 4) (max 8) (limit 10000)\n  ufid enabled : true\n\n" +
		"system@ovs-system:\n  flows         : (current 23) (avg 4) (max 8) (limit 10000)\n  offloaded flows : 12\n  dump duration : 1ms\n"
	c := control(t, func(method string, _ []any) string {
		if method == "version" {
			return said("ovs-vswitchd (Open vSwitch) 3.5.0\n")
		}
		return said(shown)
	})
	for datapath, want := range map[string]SwitchState{
		SystemDatapath: {Running: true, Version: "3.5.0", Flows: 23, Active: true},
		NetdevDatapath: {Running: true, Version: "3.5.0", Flows: 8},
		"other@x":      {Running: true, Version: "3.5.0"},
	} {
		got, err := c.State(context.Background(), datapath)
		if time.Since(got.Started) > time.Minute {
			t.Errorf("started %v", got.Started)
		}
		if got.Started = (time.Time{}); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; wanted %+v", datapath, got, err, want)
		}
	}
	if got, err := (Control{t.TempDir()}).State(context.Background(), SystemDatapath); err != nil || got.Running {
		t.Errorf("nothing runs: got %+v, %v", got, err)
	}
}

func TestDatabase(t *testing.T) {
	dir, err := os.MkdirTemp("", "offload")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "db.sock")
	answer := `{"id":0,"error":null,"result":[
		{"rows":[{"other_config":["map",[["hw-offload","true"],["tc-policy","skip_sw"]]],"dpdk_initialized":false}]},
		{"rows":[
			{"name":"pf0vf0","type":"","ofport":3,"ifindex":17,"other_config":["map",[["hw-offload-priority","none"]]],"options":["map",[]],"external_ids":["map",[["iface-id","demo_east"]]]},
			{"name":"gone","type":"","ofport":-1,"ifindex":["set",[]],"other_config":["map",[]],"options":["map",[]],"external_ids":["map",[]]},
			{"name":"ovn-1","type":"geneve","ofport":5,"ifindex":9,"other_config":["map",[]],"options":["map",[["remote_ip","172.18.0.3"]]],"external_ids":["map",[]]}]}]}`
	serve(t, path, func(r map[string]any) string {
		if r["method"] != "transact" || strings.Contains(fmt.Sprint(r["params"]), "insert") {
			t.Errorf("asked %v", r)
		}
		return answer
	})
	db := Socket{"unix:" + path}
	got, err := db.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p := got.Ports["pf0vf0"]
	if !got.HWOffload || got.TCPolicy != "skip_sw" || got.DPDK || len(got.Ports) != 3 || p.OFPort != 3 || p.Number != 17 || p.Priority != "none" ||
		p.IDs["iface-id"] != "demo_east" || got.Ports["gone"].OFPort != 0 || got.Ports["ovn-1"].Remote != "172.18.0.3" || got.Ports["ovn-1"].Type != "geneve" {
		t.Errorf("got %+v", got)
	}
	for text, want := range map[string]string{
		`{"id":0,"error":"unknown database","result":null}`:                            "unknown database",
		`{"id":0,"error":null,"result":[{"error":"resources","details":"none"},null]}`: "resources: none",
		`{"id":0,"error":null,"result":[]}`:                                            "0 results for 2 tables",
		`{`:                                                                            "EOF",
	} {
		answer = text
		if _, err := db.Read(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
	for _, endpoint := range []string{"ssl:1.2.3.4:6640", "nothing"} {
		if _, err := (Socket{endpoint}).Read(context.Background()); err == nil || !strings.Contains(err.Error(), "neither unix:FILE") {
			t.Errorf("%s: got %v", endpoint, err)
		}
	}
}
