package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spent is CPU time, by process.
type spent map[string]time.Duration

// cpu reads what the daemons of the zone and this program have used so far. What the
// machine does besides is not in it.
func (z *zone) cpu() spent {
	out := spent{"agent": usedBy(os.Getpid())}
	for as, pid := range z.pids {
		out[as] = usedBy(pid)
	}
	return out
}

// usedBy is the CPU time of a process, with that of its threads which have ended
// (clock_getcpuclockid(3)): one system call, as what it costs is in the figures.
func usedBy(pid int) time.Duration {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|scheduled), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// meter adds up what each kind of pod costs.
type meter struct {
	zone  *zone
	began spent
	sums  map[string]spent
	times map[string]int
}

func newMeter(z *zone) *meter {
	return &meter{zone: z, sums: map[string]spent{}, times: map[string]int{}}
}

func (m *meter) start() {
	if m != nil {
		m.began = m.zone.cpu()
	}
}

func (m *meter) stop(what string) {
	if m == nil {
		return
	}
	if m.sums[what] == nil {
		m.sums[what] = spent{}
	}
	m.times[what]++
	for as, until := range m.zone.cpu() {
		m.sums[what][as] += until - m.began[as]
	}
}

// processes are in the order in which a port passes them.
func processes() []string {
	return []string{"agent", "ovs", "vswitchd", "nb", "northd", "sb", "controller"}
}

// print shows milliseconds of CPU time a pod.
func (m *meter) print(w io.Writer, title string, order []string) {
	fmt.Fprintf(w, "\n%-34s  %s\n", title, strings.Join(processes(), "  "))
	for _, what := range order {
		fmt.Fprintf(w, "  %-32s", what)
		for _, p := range processes() {
			fmt.Fprintf(w, "  %*s", len(p), ms(m.sums[what][p]/time.Duration(max(1, m.times[what]))))
		}
		fmt.Fprintln(w)
	}
}
