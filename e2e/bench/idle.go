package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// timeIdle is part idle: what the agent's parts use of a CPU while nothing happens.
// They are in this process, with nothing beside them but this wait.
func timeIdle(ctx context.Context, o options, _ *node, w io.Writer) error {
	before, err := cpuTime()
	if err != nil {
		return err
	}
	if err := pause(ctx, o.spell); err != nil {
		return err
	}
	after, err := cpuTime()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "driver, engine and CNI server at rest for %s: %.2f %% of a CPU\n", o.spell, 100*(after-before).Seconds()/o.spell.Seconds())
	return nil
}

// cpuTime is what this process has used, in user and kernel mode.
func cpuTime() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}
