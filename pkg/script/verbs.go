package script

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// verb is one word of the language.
type verb struct {
	usage       string
	help        string
	least, most int // arguments; most -1: any number
	says        bool
	asks        bool // it tests the last output: "!" turns the answer around
	run         func(r *runner, args []string) (string, error)
}

// verbs is a table and is never written.
var verbs = map[string]verb{
	"apply":     {usage: "FILE...", help: "put the objects of files", least: 1, most: -1, run: (*runner).apply},
	"delete":    {usage: "FILE|Kind/name...", help: "delete objects", least: 1, most: -1, run: (*runner).delete},
	"step":      {help: "compile, and write until nothing is left to do", run: (*runner).step},
	"deliver":   {help: "give the engine what is queued, and perform nothing", run: (*runner).deliver},
	"synced":    {help: "all sources have delivered (step says it by itself)", run: (*runner).synced},
	"snapshot":  {usage: "DB", help: "read a database (step does it by itself)", least: 1, most: 1, run: (*runner).snapshot},
	"tick":      {usage: "MILLISECONDS", help: "let time pass", least: 1, most: 1, run: (*runner).tick},
	"installed": {help: "all chassis have installed what is committed", run: (*runner).installed},
	"restart":   {help: "kill the process and start it again", run: (*runner).restart},
	"fail":      {usage: "GROUP io|constraint TEXT", help: "refuse a group's transactions until mend", least: 3, most: 3, run: (*runner).fail},
	"mend":      {help: "end all failures", run: (*runner).mend},
	"lose":      {usage: "applied|dropped", help: "lose the answer to the next transaction", least: 1, most: 1, run: (*runner).lose},
	"down":      {usage: "DB", help: "lose the connection to a database", least: 1, most: 1, run: (*runner).downVerb},
	"up":        {usage: "DB", help: "have it again", least: 1, most: 1, run: (*runner).upVerb},
	"batch":     {usage: "N", help: "cut transactions at about N operations, and restart", least: 1, most: 1, run: (*runner).batch},
	"foreign":   {usage: "FILE", help: "write rows as somebody else", least: 1, most: 1, run: (*runner).foreign},
	"vandalize": {usage: "ROW", help: "delete a row of ours behind the engine's back", least: 1, most: 1, run: (*runner).vandalize},

	"rows":     {usage: "[TABLE...]", help: "what units want", most: -1, says: true, run: (*runner).rows},
	"edges":    {usage: "[TABLE...]", help: "the shared elements that units want", most: -1, says: true, run: (*runner).edges},
	"db":       {usage: "[TABLE...]", help: "what databases hold of ours", most: -1, says: true, run: (*runner).held},
	"others":   {help: "what databases hold of others", says: true, run: (*runner).others},
	"ops":      {help: "the transactions of the last step", says: true, run: (*runner).opsVerb},
	"explain":  {usage: "UNIT", help: "what a unit reads and says", least: 1, most: 1, says: true, run: (*runner).explain},
	"problems": {help: "the mistakes found in what users asked for", says: true, run: (*runner).problems},
	"waiting":  {help: "the groups that are not written, and why", says: true, run: (*runner).waiting},
	"marks":    {usage: "GROUP", help: "whether a group is committed and installed", least: 1, most: 1, says: true, run: (*runner).marks},
	"units":    {help: "the live units", says: true, run: (*runner).units},
	"compiles": {help: "how many units the last step has run", says: true, run: (*runner).compiles},
	"trace":    {usage: "FROM TO:PORT/PROTOCOL allow|drop [TEXT]", help: "send a packet through the logical network; its trace contains TEXT", least: 3, most: 4, run: (*runner).trace},

	"cmp":   {usage: "FILE", help: "the last output is the file's content", least: 1, most: 1, run: (*runner).cmp},
	"grep":  {usage: "TEXT", help: "the last output contains TEXT", least: 1, most: 1, asks: true, run: (*runner).grep},
	"empty": {help: "the last output is empty", asks: true, run: (*runner).empty},
}

// Verbs lists the language: one line a verb.
func Verbs() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(verbs)) {
		fmt.Fprintf(&b, "%-44s %s\n", strings.TrimSpace(name+" "+verbs[name].usage), verbs[name].help)
	}
	return b.String()
}

func (r *runner) file(name string) ([]byte, error) {
	data, ok := r.script.File(name)
	if !ok {
		return nil, fmt.Errorf("no file %q in the script", name)
	}
	return data, nil
}

// Read passes a file's text through the door. A problem of severity error is an
// error.
func (s *Shell) Read(text []byte) ([]intent.Object, error) {
	objects, problems := s.cfg.Door(text)
	s.problems = append(s.problems, problems...)
	return objects, nil
}

func (r *runner) apply(args []string) (string, error) {
	r.shell.problems = nil
	for _, name := range args {
		data, err := r.file(name)
		if err != nil {
			return "", err
		}
		objects, err := r.shell.Read(data)
		if err != nil {
			return "", err
		}
		for _, o := range objects {
			r.shell.Put(o)
		}
	}
	return "", nil
}

func (r *runner) delete(args []string) (string, error) {
	for _, name := range args {
		if k, ok := intent.ParseKey(name); ok && r.shell.objects[k] != nil {
			r.shell.Delete(k)
			continue
		}
		data, err := r.file(name)
		if err != nil {
			return "", err
		}
		objects, err := r.shell.Read(data)
		if err != nil {
			return "", err
		}
		for _, o := range objects {
			r.shell.Delete(o.Key())
		}
	}
	return "", nil
}

func (r *runner) step([]string) (string, error) { return "", r.shell.Settle() }

func (r *runner) deliver([]string) (string, error) {
	r.shell.ops = nil
	return "", r.shell.Deliver()
}

func (r *runner) synced([]string) (string, error) {
	r.shell.begun = true
	r.shell.Event(engine.Event{Synced: true})
	return "", nil
}

func (r *runner) snapshot(args []string) (string, error) {
	r.shell.begun = true
	return "", r.shell.snapshot(rows.DB(args[0]))
}

func (r *runner) tick(args []string) (string, error) {
	ms, err := strconv.ParseInt(args[0], 10, 64)
	if err == nil {
		r.shell.Tick(ms)
	}
	return "", err
}

func (r *runner) installed([]string) (string, error) {
	d, err := r.shell.database(rows.NB)
	if err != nil {
		return "", err
	}
	snap, err := d.Snapshot()
	r.shell.Event(engine.Event{Installed: snap.NbCfg})
	return "", err
}

func (r *runner) restart([]string) (string, error) {
	r.shell.Restart()
	return "", nil
}

func (r *runner) fail(args []string) (string, error) {
	class, ok := map[string]engine.Class{"io": engine.IO, "constraint": engine.Constraint}[args[1]]
	if !ok {
		return "", fmt.Errorf("class %q, wanted io or constraint", args[1])
	}
	r.shell.Fail(args[0], engine.Failure{Class: class, Err: args[2]})
	return "", nil
}

func (r *runner) mend([]string) (string, error) {
	r.shell.Mend()
	return "", nil
}

func (r *runner) lose(args []string) (string, error) {
	if args[0] != "applied" && args[0] != "dropped" {
		return "", fmt.Errorf("%q, wanted applied or dropped", args[0])
	}
	r.shell.Lose(args[0] == "applied")
	return "", nil
}

func (r *runner) batch(args []string) (string, error) {
	n, err := strconv.Atoi(args[0])
	r.shell.cfg.MaxOps = n
	r.shell.Restart()
	return "", err
}

func (r *runner) downVerb(args []string) (string, error) {
	r.shell.Down(rows.DB(args[0]))
	return "", nil
}

func (r *runner) upVerb(args []string) (string, error) {
	return "", r.shell.Up(rows.DB(args[0]))
}

func (r *runner) trace(args []string) (string, error) {
	if args[2] != "allow" && args[2] != "drop" {
		return "", fmt.Errorf("%q, wanted allow or drop", args[2])
	}
	if r.shell.cfg.Trace == nil {
		_, err := r.shell.PacketOf(args[0], args[1])
		return "", err
	}
	text, delivered, err := r.shell.cfg.Trace(r.shell, args[0], args[1])
	if err == nil && delivered != (args[2] == "allow") {
		err = fmt.Errorf("wanted %s, the packet went so:\n%s", args[2], text)
	}
	if err == nil && len(args) == 4 && !strings.Contains(text, args[3]) {
		err = fmt.Errorf("wanted %q in the trace:\n%s", args[3], text)
	}
	return text, err
}

func (r *runner) cmp(args []string) (string, error) {
	if r.update {
		r.script.SetFile(args[0], []byte(r.last))
		return "", nil
	}
	want, err := r.file(args[0])
	if err != nil {
		return "", err
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(r.last, "\n")); diff != "" {
		return "", fmt.Errorf("wanted (-) and found (+):\n%s", diff)
	}
	return "", nil
}

func (r *runner) grep(args []string) (string, error) {
	if !strings.Contains(r.last, args[0]) {
		return "", fmt.Errorf("not in the output:\n%s", r.last)
	}
	return "", nil
}

func (r *runner) empty([]string) (string, error) {
	if r.last != "" {
		return "", errors.New("found:\n" + r.last)
	}
	return "", nil
}
