package nodeinit

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

// supervisor is the state of PID 1.
type supervisor struct {
	mu      sync.Mutex // guards running
	running map[int]service
	ended   chan service
}

// supervise starts the services, each as soon as what it needs is there, starts
// again those that end, and reaps every orphan of the node. It does not return:
// the node ends when this process is killed.
func supervise(list []service) error {
	v := &supervisor{running: map[int]service{}, ended: make(chan service, len(list))}
	for _, s := range list {
		go v.launch(s)
	}
	go func() {
		for s := range v.ended {
			go func() {
				time.Sleep(time.Second) // as systemd's RestartSec
				v.launch(s)
			}()
		}
	}()
	for {
		v.reap()
	}
}

// launch waits for what a service needs, and starts it. With nothing to wait for
// in the kernel, it asks; ten times a second costs nothing here.
func (v *supervisor) launch(s service) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("service", s.name)
	for s.before != nil && !s.before() {
		time.Sleep(100 * time.Millisecond)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	pid, err := s.start()
	if err != nil {
		log.Error("start failed", "error", err)
		v.ended <- s
		return
	}
	log.Info("started", "pid", pid)
	v.running[pid] = s
}

// reap waits for one process of the node to end.
func (v *supervisor) reap() {
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, 0, nil)
	if errors.Is(err, syscall.ECHILD) {
		time.Sleep(10 * time.Millisecond)
		return
	}
	if err != nil || pid <= 0 {
		return
	}
	v.mu.Lock()
	s, ours := v.running[pid]
	delete(v.running, pid)
	v.mu.Unlock()
	if ours {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Warn("ended", "service", s.name, "pid", pid, "exit", status.ExitStatus(), "signal", status.Signal())
		v.ended <- s
	}
}
