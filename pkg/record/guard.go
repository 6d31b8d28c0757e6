package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Guard returns run, which steps the engine, so that a panic in it leaves a file
// with all that led to it, the step that has panicked last. The panic goes on: the
// process ends as it would have. The file replaces that of an earlier crash.
func (r *Recorder) Guard(path string, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err := r.save(path); err != nil {
				r.cfg.Logger.Error("the flight recorder was not saved", "err", err)
			} else {
				r.cfg.Logger.Error("panic: what led to it can be replayed with portolan replay", "file", path, "panic", fmt.Sprint(p))
			}
			panic(p)
		}()
		return run(ctx)
	}
}

func (r *Recorder) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(r.Crash(f), f.Close())
}
