package suite

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
)

// TestSoak does random faults, with pods coming and going between them, for
// PORTOLAN_SOAK_HOURS: the same invariants after each, and at the end the agents
// have no more goroutines, files and heap than at the beginning. `make soak HOURS=n`
// runs it; PORTOLAN_SEED repeats a run's order.
func TestSoak(t *testing.T) {
	hours, _ := strconv.ParseFloat(os.Getenv("PORTOLAN_SOAK_HOURS"), 64)
	if hours <= 0 {
		t.Skip("hours long: make soak HOURS=n runs it")
	}
	dice := rand.New(rand.NewPCG(orderOf(t), 0))
	old := map[string]string{}
	for _, db := range []string{"NB", "SB"} {
		old[db] = t.TempDir() + "/" + db
		if err := faults.Copy(victim, db, old[db]); err != nil {
			t.Fatal(err)
		}
	}
	r := rig(t)
	var list []faults.Fault
	for _, d := range faults.Daemons() {
		list = append(list, faults.Killed(d.Name))
	}
	for db, file := range old {
		list = append(list, faults.Wiped(db), faults.Restored(db, file))
	}
	list = append(list, faults.All(), faults.AllWithVswitchd())
	end := time.Now().Add(time.Duration(hours * float64(time.Hour)))
	churn(t, dice)
	first := figures(t)
	rounds := 0
	for ; time.Now().Before(end) && !t.Failed(); rounds++ {
		do(t, r, list[dice.IntN(len(list))])
		churn(t, dice)
	}
	last := figures(t)
	t.Logf("%d faults; at the beginning %v, at the end %v", rounds, first, last)
	for name, was := range first {
		if now := last[name]; now > 1.5*was+50 && now > was+slack[name] {
			t.Errorf("%s: %.0f at the beginning, %.0f after %d faults", name, was, now, rounds)
		}
	}
}

// slack is what a figure may grow by without a leak: a garbage collector's mood.
var slack = map[string]float64{"go_memstats_heap_alloc_bytes": 32 << 20}

// churn lets pods come and go.
func churn(t *testing.T, dice *rand.Rand) {
	t.Helper()
	apply(t, deploymentOn("churn", victim, 1+dice.IntN(12)))
	kubectl(t, "-n", namespace, "rollout", "status", "deployment/churn", "--timeout=100s")
	kubectl(t, "-n", namespace, "delete", "deployment", "churn", "--wait=true")
	kubectl(t, "-n", namespace, "wait", "--for=delete", "pod", "-l", "app=churn", "--timeout=100s")
}

// figures reads what must stay flat of the victim's agent.
func figures(t *testing.T) map[string]float64 {
	t.Helper()
	m := machines(t)[victim]
	dial := func(_ context.Context, network, addr string) (conn net.Conn, err error) {
		err = m.Do(func() error { conn, err = net.Dial(network, addr); return err })
		return conn, err
	}
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:9410/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return parseFigures(t, resp.Body)
}

func parseFigures(t *testing.T, r io.Reader) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, val, _ := strings.Cut(lines.Text(), " ")
		switch name {
		case "go_goroutines", "process_open_fds", "go_memstats_heap_alloc_bytes":
			n, err := strconv.ParseFloat(val, 64)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = n
		}
	}
	if len(out) != 3 {
		t.Fatal(fmt.Errorf("figures found: %v", out))
	}
	return out
}
