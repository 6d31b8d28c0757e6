package restart

import (
	"flag"
	"testing"
)

var (
	onReal = flag.Bool("real", false, "run on real databases: make databases")
	pods   = flag.Int("pods", 10_000, "how many pods the largest restart has")
)

// TestRestartWritesNothing restarts an agent with no pod, with as many as the
// lab's largest suite has, and with ten thousand.
func TestRestartWritesNothing(t *testing.T) {
	if !*onReal {
		t.Skip("needs real databases: make databases")
	}
	for _, n := range []int{0, 60, *pods} {
		r := Measure(t, n)
		t.Log(r)
		if !r.Silent() {
			t.Errorf("a restart with %d pods writes: %v", n, r)
		}
	}
}

// TestChangesAreSeen shows that the count bites.
func TestChangesAreSeen(t *testing.T) {
	stream := `{"id":1,"method":"lock","params":["portolan"]}
{"id":2,"method":"transact","params":["OVN_Northbound",{"op":"assert","lock":"portolan"},{"op":"select","table":"ACL","where":[]}]}
{"id":3,"method":"transact","params":["OVN_Northbound",{"op":"insert","table":"ACL"},{"op":"mutate","table":"Logical_Switch"}]}`
	if n, err := changes(stream); n != 2 || err != nil {
		t.Errorf("%d changes, %v", n, err)
	}
	if _, err := changes(stream[:len(stream)-9]); err == nil {
		t.Error("a cut message passes")
	}
}
