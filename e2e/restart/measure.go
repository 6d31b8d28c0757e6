package restart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// Report is what a restart cost.
type Report struct {
	Pods    int
	First   time.Duration   // the life before, from empty databases
	Restart time.Duration   // from connecting until at rest
	CPU     time.Duration   // that this process has used for the restart; the servers' is not in it
	Writes  map[rows.DB]int // operations that change something, on the wire
	Patches int             // requests to the API server that change something
	Heap    int64           // bytes that the restarted agent holds, after a collection
	Stages  string          // where the restart's time went
}

// String is one line of a table.
func (r Report) String() string {
	return fmt.Sprintf("%6d pods: restart %6.2f s (CPU %.2f s), writes NB %d SB %d OVS %d API %d, heap %5.1f MB (%.1f KB a pod); from nothing %.1f s;%s",
		r.Pods, r.Restart.Seconds(), r.CPU.Seconds(), r.Writes[rows.NB], r.Writes[rows.SB], r.Writes[rows.OVS], r.Patches,
		float64(r.Heap)/1e6, float64(r.Heap)/1024/float64(max(1, r.Pods)), r.First.Seconds(), r.Stages)
}

// Silent reports whether nothing was written.
func (r Report) Silent() bool {
	return r.Writes[rows.NB]+r.Writes[rows.SB]+r.Writes[rows.OVS]+r.Patches == 0
}

// limit bounds one life until it is at rest.
const limit = 5 * time.Minute

// Measure gives an agent so many pods, kills it once it is at rest, and starts it
// again. The databases are real: see ovsdbtest for what that needs.
func Measure(t testing.TB, pods int) Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	m := newMachine(t, pods)
	r := Report{Pods: pods, Writes: map[rows.DB]int{}}
	began := time.Now()
	first, err := start(ctx, m)
	first.end()
	if err != nil {
		t.Fatalf("the first life: %v", err)
	}
	r.First = time.Since(began)
	for db := range m.proxies {
		m.count(t, db)
	}
	made, seen := m.patches(0)
	if made < pods {
		t.Fatalf("%d patches for %d pods: nothing is published, so nothing is shown", made, pods)
	}
	before := heap()
	began, r.CPU = time.Now(), -used()
	second, err := start(ctx, m)
	defer second.end()
	if err != nil {
		t.Fatalf("after the restart: %v", err)
	}
	r.Restart = time.Since(began)
	r.CPU += used()
	for i, s := range second.stages[1:] {
		r.Stages += fmt.Sprintf(" %s +%.2f s", s.name, s.at.Sub(second.stages[i].at).Seconds())
	}
	for db := range m.proxies {
		r.Writes[db] = m.count(t, db)
	}
	r.Patches, _ = m.patches(seen)
	r.Heap = heap() - before
	runtime.KeepAlive(second)
	return r
}

// used is the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // the figure is for people
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// request is what is read of a JSON-RPC message.
type request struct {
	Method string            `json:"method"`
	Params []json.RawMessage `json:"params"`
}

// count reads what clients have sent to a database since the last count: the
// operations of transactions that change something.
func (m *machine) count(t testing.TB, db rows.DB) (n int) {
	t.Helper()
	n, err := changes(m.proxies[db].Take())
	if err != nil {
		t.Fatalf("%s: what clients sent cannot be read: %v", db, err)
	}
	return n
}

// changes counts in a stream of JSON-RPC messages. Several connections may be
// mixed in it at the borders of what was read at once: a message that is cut
// makes an error, never a silence.
func changes(stream string) (n int, err error) {
	d := json.NewDecoder(strings.NewReader(stream))
	for {
		var r request
		if err := d.Decode(&r); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
		if r.Method != "transact" {
			continue
		}
		for _, raw := range r.Params {
			var op struct {
				Op string `json:"op"`
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				continue // the database's name
			}
			switch op.Op {
			case "insert", "update", "mutate", "delete":
				n++
			}
		}
	}
}
