package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

// A model run applies random edits to toy units whose rows depend on each other
// in all four ways, and injects what databases and connections do. After every
// transaction nothing may be lost silently and no name may dangle; at rest the
// database holds what the model wants. A failing run is shrunk by leaving out
// events while it still fails, and printed with its seed.

// edit is one event of a run; its text replays it.
type edit struct {
	verb string // put, delete, settle, or a fault
	unit string
	seed uint64 // of what the unit says
}

func (e edit) String() string { return fmt.Sprintf("%s %s %d", e.verb, e.unit, e.seed) }

// modelUnits are the units that edits choose from. Pods share groups in pairs.
func modelUnits() []string {
	var out []string
	for i := range 3 {
		n := strconv.Itoa(i)
		out = append(out, "node/sw"+n, "node/set"+n, "node/pg"+n, "service/ha"+n, "service/lb"+n, "policy/acl"+n,
			"pod/p"+n+"@g"+n, "policy/member"+n+"@g"+n, "pod/lone"+n)
	}
	return out
}

func makeEdits(seed uint64, n int) []edit {
	r := rand.New(rand.NewPCG(seed, 7))
	units := modelUnits()
	faults := []string{"refuse", "vanish", "lose-applied", "lose-dropped", "down", "up", "restart", "vandalize", "tick", "installed"}
	var out []edit
	for range n {
		e := edit{unit: units[r.IntN(len(units))], seed: r.Uint64N(1000)}
		switch k := r.IntN(20); {
		case k < 9:
			e.verb = "put"
		case k < 12:
			e.verb = "delete"
		case k < 18:
			e.verb = "settle"
		default:
			e.verb = faults[r.IntN(len(faults))]
		}
		out = append(out, e)
	}
	return out
}

// say makes what a unit says, from a seed: the same seed says the same.
func say(unit string, seed uint64) rows.Output {
	r := rand.New(rand.NewPCG(seed, 11))
	pick := func(prefix string) string { return prefix + strconv.Itoa(r.IntN(3)) }
	ref := func(table rows.Table, id string) rows.Ref { return rows.Ref{Table: table, ID: id} }
	_, name, _ := strings.Cut(unit, "/")
	name, _, _ = strings.Cut(name, "@")
	kind, n := strings.TrimRight(name, "012"), name[len(name)-1:]
	var out rows.Output
	port := func(id string) {
		cols := map[string]rows.Value{"name": rows.Str(id), "addresses": rows.Strings(pick("10.0.0."))}
		if r.IntN(3) == 0 {
			cols["ha_chassis_group"] = rows.Set(rows.R(ref("NB:HA_Chassis_Group", pick("ha"))))
		}
		if r.IntN(4) == 0 {
			cols["dhcpv4_options"] = rows.Set(rows.R(ref("NB:DHCP_Options", pick("dhcp"))))
		}
		out.Add(rows.Child("NB:Logical_Switch_Port", id, ref("NB:Logical_Switch", pick("sw")), "ports", cols))
	}
	switch kind {
	case "sw":
		out.Add(rows.New("NB:Logical_Switch", name, map[string]rows.Value{"name": rows.Str(name), "other_config": rows.Map(map[string]string{"a": pick("v")})}))
		if r.IntN(2) == 0 {
			out.Add(rows.New("NB:DHCP_Options", "dhcp"+n, map[string]rows.Value{"cidr": rows.Str("10.0.0.0/24")}))
		}
		out.Link(rows.Entry(ref("NB:NB_Global", rows.Singleton), "options", "k"+n, pick("v")))
	case "set":
		out.Add(rows.New("NB:Address_Set", name, map[string]rows.Value{"name": rows.Str(pick("as"))}))
	case "pg":
		out.Add(rows.New("NB:Port_Group", name, map[string]rows.Value{"name": rows.Str(name)}))
		if r.IntN(2) == 0 {
			addACL(&out, ref("NB:Port_Group", name), "own"+n, pick("as"))
		}
	case "ha":
		out.Add(rows.New("NB:HA_Chassis_Group", name, map[string]rows.Value{"name": rows.Str(name)}))
	case "lb":
		out.Add(rows.New("NB:Load_Balancer", name, map[string]rows.Value{"name": rows.Str(name), "vips": rows.Map(map[string]string{"10.96.0.1:80": pick("10.0.0.")})}))
		out.Link(rows.Member(ref("NB:Logical_Switch", pick("sw")), "load_balancer", rows.R(ref("NB:Load_Balancer", name))))
	case "acl":
		for i := range 1 + r.IntN(2) {
			addACL(&out, ref("NB:Port_Group", pick("pg")), name+"/"+strconv.Itoa(i), pick("as"))
		}
	case "p", "lone":
		port(name)
		out.Link(rows.Member(ref("NB:Address_Set", pick("set")), "addresses", rows.S("10.1.0."+n)))
	case "member":
		out.Link(rows.Member(ref("NB:Port_Group", pick("pg")), "ports", rows.R(ref("NB:Logical_Switch_Port", pick("p")))))
		out.Link(rows.Member(ref("NB:Logical_Switch", pick("sw")), "load_balancer", rows.R(ref("NB:Load_Balancer", pick("lb")))))
	}
	return out
}

func addACL(out *rows.Output, group rows.Ref, id, set string) {
	out.Add(rows.Child("NB:ACL", id, group, "acls", map[string]rows.Value{
		"match": rows.Str("ip4.src == $" + set), "action": rows.Str("drop"), "direction": rows.Str("to-lport"),
	}).Using(rows.Name{DB: rows.NB, Kind: rows.AddressSet, Name: set}))
}

// watched is a simulated database that is audited after every transaction and
// can be told to misbehave.
type watched struct {
	*enginetest.DB
	refuse string // part of a group's name to refuse once
	vanish bool   // blame the first group of the next transaction
	err    error
}

func (w *watched) Snapshot() (engine.Snapshot, error) { return w.DB.Snapshot(), nil }

func (w *watched) Apply(t engine.Txn) engine.Result {
	blame := map[string]engine.Failure{}
	if w.refuse != "" {
		t.Groups = scripttest.Refuse(t.Groups, blame, func(group string) bool { return strings.Contains(group, w.refuse) })
		w.refuse = ""
	}
	res := w.DB.Apply(t)
	if w.vanish && len(t.Groups) > 0 {
		blame[t.Groups[0].Group] = engine.Failure{Class: engine.Vanished, Err: "the test says so"}
	}
	w.vanish = false
	for g, f := range res.Failed {
		if f.Class == engine.Constraint && len(blame) == 0 {
			w.err = errors.Join(w.err, fmt.Errorf("%s refused: %s\n%s", g, f.Err, t))
		}
		blame[g] = f
	}
	res.Failed = blame
	if len(w.Lost) > 0 {
		w.err = errors.Join(w.err, fmt.Errorf("silently lost: %v\n%s", w.Lost, t))
		w.Lost = nil
	}
	if d := w.Dangling(); len(d) > 0 {
		w.err = errors.Join(w.err, fmt.Errorf("dangling: %v\n%s", d, t))
	}
	return res
}

// replay performs edits and reports the first thing that is not as it must be.
func replay(edits []edit) (err error) { return watch(edits, nil) }

// watch is replay under somebody's eyes.
func watch(edits []edit, eyes func(*engine.Engine, []engine.Event, engine.Ready)) (err error) {
	db := &watched{DB: enginetest.New(rows.NB)}
	sh := script.New(script.Config{Kinds: toyKinds(), Door: toyDoor, Databases: []script.Database{db}, MaxOps: 6, Watch: eyes})
	down, tainted := false, false // by vandals: names may dangle until it is repaired
	for i, e := range edits {
		if err := perform(sh, db, e); err != nil {
			return fmt.Errorf("event %d, %s: %w", i, e, err)
		}
		tainted = tainted || e.verb == "vandalize"
		down = e.verb == "down" || down && e.verb != "up" && e.verb != "vandalize"
		if db.err != nil && !tainted {
			return fmt.Errorf("event %d, %s: %w", i, e, db.err)
		}
		db.err = nil
	}
	if down { // and only then: a snapshot wakes all that waits, and would hide what waits in vain
		if err := sh.Up(rows.NB); err != nil {
			return err
		}
	}
	for range 5 { // failures back off; five rounds end all that the test made
		sh.Tick(400_000)
		if err := sh.Settle(); err != nil {
			return fmt.Errorf("at the end: %w", err)
		}
	}
	if tainted {
		db.err = nil
	}
	return errors.Join(db.err, atRest(sh, db))
}

func perform(sh *script.Shell, db *watched, e edit) error {
	switch e.verb {
	case "put":
		sh.Put(&said{e.unit, say(e.unit, e.seed)})
	case "delete":
		sh.Delete(intent.Key{Kind: kindSaid, Name: e.unit})
	case "settle":
		return sh.Settle()
	case "refuse":
		db.refuse = "p"
	case "vanish":
		db.vanish = true
	case "lose-applied", "lose-dropped":
		sh.Lose(e.verb == "lose-applied")
	case "down":
		sh.Down(rows.NB)
	case "up":
		return sh.Up(rows.NB)
	case "restart":
		sh.Restart()
	case "vandalize":
		return vandalize(sh, db, e.seed)
	case "tick":
		sh.Tick(int64(e.seed) * 10)
	case "installed":
		if e.seed%2 == 0 { // the other half of these events is lost
			db.HvCfg = db.NbCfg
			sh.Event(engine.Event{Installed: db.HvCfg})
		}
	}
	return nil
}

// vandalize deletes a row; a reconnection lets the engine find out.
func vandalize(sh *script.Shell, db *watched, seed uint64) error {
	held := script.HeldRows(db.DB.Snapshot())
	if len(held) > 0 {
		_ = db.Vandalize(held[seed%uint64(len(held))].Ref) // one that is referred to is refused
	}
	sh.Down(rows.NB)
	return sh.Up(rows.NB)
}

// TestModel runs the model on many seeds. PORTOLAN_MODEL_SEED runs one, PORTOLAN_MODEL_RUNS
// so many.
func TestModel(t *testing.T) {
	first, last := uint64(0), uint64(600)
	if testing.Short() {
		last = 50
	}
	if n, err := strconv.ParseUint(os.Getenv("PORTOLAN_MODEL_RUNS"), 10, 64); err == nil {
		last = n
	}
	if one, err := strconv.ParseUint(os.Getenv("PORTOLAN_MODEL_SEED"), 10, 64); err == nil {
		first, last = one, one+1
	}
	for seed := first; seed < last; seed++ {
		edits := makeEdits(seed, 80)
		if err := replay(edits); err != nil {
			small, why := shrink(edits, err)
			var text []string
			for _, e := range small {
				line := e.String()
				if e.verb == "put" {
					out := say(e.unit, e.seed)
					line += "\n" + rows.Format(out.Rows, out.Edges)
				}
				text = append(text, line)
			}
			t.Fatalf("seed %d fails with %d events (shrunk from %d):\n%s\n\n%v", seed, len(small), len(edits), strings.Join(text, "\n"), why)
		}
	}
}

// shrink leaves out events, in ever smaller runs, while what is left fails.
func shrink(edits []edit, why error) ([]edit, error) {
	for size := len(edits) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(edits); {
			fewer := slices.Delete(slices.Clone(edits), at, at+size)
			if err := replay(fewer); err != nil {
				edits, why = fewer, err
			} else {
				at += size
			}
		}
	}
	return edits, why
}
