package metrics

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const page = "../../docs/metrics.md"

// processes makes every process's figures.
func processes() []*Set {
	node := New("node")
	NewNode(node)
	NewOffload(node)
	NewDevices(node)
	NewCompiler(node).Watch(Source{})
	node.Handler(Probes{})
	controller := New("controller")
	NewCompiler(controller).Watch(Source{})
	controller.Handler(Probes{})
	manager := New("manager")
	NewManager(manager)
	manager.Handler(Probes{})
	return []*Set{node, controller, manager}
}

var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]*)", help: "(.*?)"(?:, unit: "[^"]*")?, constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

// table is the markdown of one process's figures.
func table(t *testing.T, s *Set) string {
	t.Helper()
	var lines []string
	for _, c := range s.ours {
		ch := make(chan *prometheus.Desc, 64)
		c.Describe(ch)
		close(ch)
		for d := range ch {
			m := descText.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("not understood: %s", d)
			}
			lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
		}
	}
	slices.Sort(lines)
	return fmt.Sprintf("## portolan-%s\n\n| name | labels | what it is |\n|---|---|---|\n%s", s.process, strings.Join(lines, ""))
}

const preface = `# Metrics

What each process answers to GET /metrics, beside Go's own (go_…) and the kernel's (process_…). portolan-node listens on
127.0.0.1:9410, portolan-controller on 127.0.0.1:9412, portolan-manager on port 9411; /healthz and /readyz are there too. Times are in milliseconds. This page
is written by ` + "`go test ./pkg/metrics -update`" + ` and checked by that test: a name is part of what users rely on.

Worth an alarm: ` + "`portolan_node_ready == 0`, `portolan_node_database_up == 0`, `portolan_node_bugs_total > 0`, " +
	"`portolan_node_hv_cfg_behind > 0`" + ` for a minute, ` + "`portolan_node_groups_unwritten > 0`" + ` for five,
` + "`portolan_manager_node_ids_exhausted > 0`, `portolan_manager_node_subnets_exhausted > 0`, `sum(portolan_manager_leader) != 1`" + `.
`

func TestEveryNameIsDocumented(t *testing.T) {
	text := preface
	for _, s := range processes() {
		text += "\n" + table(t, s)
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != text {
		t.Errorf("docs/metrics.md is not what this package has; go test ./pkg/metrics -update writes:\n%s", text)
	}
}

func TestNamesFollowThePrometheusRules(t *testing.T) {
	for _, s := range processes() {
		for line := range strings.Lines(table(t, s)) {
			name, _, _ := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
			if strings.HasPrefix(line, "| `") && !regexp.MustCompile(`^portolan_(devices|(`+s.process+`|offload)_[a-z0-9_]+)$`).MatchString(name) {
				t.Errorf("%s is not portolan_%s_…", name, s.process)
			}
		}
	}
}

// still is a driver whose loop stands; stuck is one whose step does not end.
type still struct{}

func (still) Do(_ context.Context, fn func()) error { fn(); return nil }

type stuck struct{}

func (stuck) Do(context.Context, func()) error { return errors.New("too late") }

type database ovsdb.State

func (database) DB() rows.DB          { return rows.NB }
func (d database) State() ovsdb.State { return ovsdb.State(d) }

func scrape(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

// complaining is an engine with n units, each with an error.
func complaining(n int) *engine.Engine {
	e := engine.New(engine.Config{Databases: []rows.DB{rows.NB}, Kinds: []engine.UnitKind{{
		Name:  "node",
		Spawn: map[intent.Kind]func(intent.Object) string{intent.KindNode: func(o intent.Object) string { return o.Key().Name }},
		Compile: func(_ *intent.View, key string) rows.Output {
			return rows.Output{Problems: []rows.Problem{{Object: "Node/" + key, Severity: rows.Error, Message: "x"}}}
		},
	}}})
	var events []engine.Event
	for i := range n {
		events = append(events, engine.Event{Put: &intent.Node{Name: fmt.Sprint("n", i)}})
	}
	e.Step(append(events, engine.Event{Synced: true}))
	return e
}

func TestCompilerFigures(t *testing.T) {
	s := New("node")
	c := NewCompiler(s)
	c.Watch(Source{
		Engine: complaining(2), Driver: still{}, Databases: []Database{database{Epoch: 3, Up: true, Drift: 4}},
		Problems: func() []rows.Problem { return []rows.Problem{{Severity: rows.Warning}} },
	})
	c.Step(ovsdb.StepStats{Events: 5, Duration: 3 * time.Millisecond})
	for _, st := range []ovsdb.TxnStats{{DB: rows.NB, Ops: 6}, {DB: rows.NB, Ops: 1, Failed: 1}, {DB: rows.NB, Lost: true, Failed: 1}} {
		c.Transaction(st)
	}
	ready := errors.New("no subnet")
	h := s.Handler(Probes{Ready: func() error { return ready }})
	_, text := scrape(t, h, "/metrics")
	for _, want := range []string{
		`portolan_node_step_milliseconds_bucket{le="5"} 1`, "portolan_node_step_events_total 5",
		`portolan_node_transactions_total{database="NB",result="committed"} 1`,
		`portolan_node_transactions_total{database="NB",result="failed"} 1`,
		`portolan_node_transactions_total{database="NB",result="lost"} 1`,
		`portolan_node_operations_total{database="NB"} 7`,
		"portolan_node_units 2", "portolan_node_compiles_total 2", "portolan_node_bugs_total 0", "portolan_node_engine_busy 0",
		`portolan_node_problems{severity="error"} 2`, `portolan_node_problems{severity="warning"} 1`,
		`portolan_node_database_up{database="NB"} 1`, `portolan_node_database_connections_total{database="NB"} 3`,
		`portolan_node_database_drift_total{database="NB"} 4`, `portolan_node_groups_unwritten{database="NB",state="waiting"} 0`,
		"portolan_node_hv_cfg_behind 0", "portolan_node_ready 0", `portolan_node_build_info{version=`, "go_goroutines", "process_",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if code, text := scrape(t, h, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "no subnet") {
		t.Errorf("readyz: %d %s", code, text)
	}
	ready = nil
	if code, text := scrape(t, h, "/readyz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("readyz: %d %s", code, text)
	}
	if code, _ := scrape(t, h, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d", code)
	}
}

func TestScrapeSurvivesABusyEngine(t *testing.T) {
	s := New("node")
	NewCompiler(s).Watch(Source{Driver: stuck{}, Databases: []Database{database{}}})
	code, text := scrape(t, s.Handler(Probes{}), "/metrics")
	if code != http.StatusOK || !strings.Contains(text, "portolan_node_engine_busy 1") ||
		!strings.Contains(text, `portolan_node_database_up{database="NB"} 0`) {
		t.Errorf("%d\n%s", code, text)
	}
}

// TestScrapeAllocatesNothingPerUnit keeps a scrape cheap however many pods there are.
func TestScrapeAllocatesNothingPerUnit(t *testing.T) {
	allocations := func(units int) float64 {
		e := complaining(units)
		return testing.AllocsPerRun(10, func() { e.Counts() })
	}
	if few, many := allocations(10), allocations(3000); many > few {
		t.Errorf("%v allocations at 10 units, %v at 3,000", few, many)
	}
}

// BenchmarkCounts is what a scrape takes of the engine's goroutine.
func BenchmarkCounts(b *testing.B) {
	e := complaining(10_000)
	for b.Loop() {
		e.Counts()
	}
}
