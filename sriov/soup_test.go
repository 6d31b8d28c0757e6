package sriov_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

const (
	soupCycles = 1000 // of ADD and DEL
	soupPods   = 8
)

// soup is pods that compete for devices, and what each was told.
type soup struct {
	*world
	devices []string
	cycles  atomic.Int64
	late    atomic.Int64 // DELs of sandboxes that had lost their device before
	busy    atomic.Int64
	macs    atomic.Int64
	kills   int

	mu    sync.Mutex                  // guards what follows
	has   map[string]sriov.Attachment // by device, what somebody was given and has not given back
	gone  []sriov.Attachment          // of sandboxes that ended without a DEL, or had one
	fault error
}

// errKilled ends the calls of a process that dies.
var errKilled = errors.New("the process is killed")

// TestSoup: a thousand ADDs and DELs of eight pods on four devices of four kinds, with the
// process killed at random steps, sandboxes that end without a DEL, DELs that come late
// or twice, and names that udev changes. No device is lost, none has two owners, and at
// the end everything is as it was.
func TestSoup(t *testing.T) {
	w := newWorld(t, "connectx-6", "a-0")
	w.kernel.Exclusive = true
	w.kernel.Preset("ens1f1np1", 0, sriov.VFState{MAC: "02:aa:00:00:00:01", Proto: "802.1q", Spoofchk: "off", Trust: "on", LinkState: "enable"})
	before := w.all()
	s := &soup{world: w, devices: []string{"0000:3b:00.2", "0000:3b:00.3", "0000:3b:02.2", "soft-a-0"}, has: map[string]sriov.Attachment{}}
	dice := rand.New(rand.NewPCG(4, 2))
	for round := 0; s.cycles.Load() < soupCycles; round++ {
		s.live(round, 20+dice.IntN(400))
		w.kernel.Linger = time.Duration(dice.IntN(3)) * time.Millisecond
		s.while(dice)
		w.start()
		if _, err := w.keeper.Repair(context.Background()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s.judge(round)
		if s.fault != nil {
			t.Fatalf("round %d: %v", round, s.fault)
		}
	}
	for _, a := range s.has {
		w.release(a)
	}
	if _, err := w.keeper.Repair(context.Background()); err != nil { // of an ADD that the last death left without an answer
		t.Fatal(err)
	}
	w.same(before, "the end")
	t.Logf("%d cycles, %d kills, %d late DELs, %d refusals of a device that somebody had", s.cycles.Load(), s.kills, s.late.Load(), s.busy.Load())
	if s.kills < 10 || s.late.Load() < 10 || s.busy.Load() < 10 {
		t.Error("too little has happened")
	}
}

// live runs the pods until the process dies after a number of steps.
func (s *soup) live(round, steps int) {
	ctx, die := context.WithCancelCause(context.Background())
	defer die(nil)
	var n atomic.Int64
	s.after = func(string) {
		if n.Add(1) >= int64(steps) {
			die(errKilled)
			panic(killed{})
		}
	}
	var pods sync.WaitGroup
	for pod := range soupPods {
		pods.Add(1)
		go func() {
			defer pods.Done()
			defer func() {
				if r := recover(); r != nil {
					if _, ok := r.(killed); !ok {
						panic(r)
					}
				}
			}()
			dice := rand.New(rand.NewPCG(uint64(round), uint64(pod)))
			for turn := 0; ctx.Err() == nil && s.cycles.Load() < soupCycles && !s.broken(); turn++ {
				s.pod(ctx, dice, fmt.Sprintf("p%d-%d-%d", pod, round, turn))
			}
		}()
	}
	pods.Wait()
	s.after = nil
	if ctx.Err() != nil {
		s.kills++
	}
	s.kernel.Die()
}

// pod asks for a device, and gives it back, mostly.
func (s *soup) pod(ctx context.Context, dice *rand.Rand, name string) {
	a := s.wish(s.devices[dice.IntN(len(s.devices))], name)
	a.MAC = mac(int(s.macs.Add(1)))
	_, err := s.keeper.Attach(ctx, a)
	if err != nil {
		if _, busy := errors.AsType[*sriov.BusyError](err); busy {
			s.busy.Add(1)
		} else if ctx.Err() == nil {
			s.fail(fmt.Errorf("ADD of %s: %w", name, err))
		}
		s.kernel.End(a.Owner.Netns)
		s.end(a)
		return
	}
	s.given(a)
	s.lateDEL(ctx, dice)
	if dice.IntN(4) == 0 { // the sandbox ends, and its DEL comes late
		s.back(a)
		s.kernel.End(a.Owner.Netns)
		s.end(a)
		s.cycles.Add(1)
		return
	}
	s.back(a)
	if err := s.keeper.Release(ctx, a.Device, a.Owner); err != nil {
		if ctx.Err() == nil {
			s.fail(fmt.Errorf("DEL of %s: %w", name, err))
		}
		return
	}
	s.cycles.Add(1)
	s.kernel.End(a.Owner.Netns)
	s.end(a)
}

func (s *soup) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault != nil
}

func (s *soup) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = errors.Join(s.fault, err)
}

// given notes who has a device: nobody else may have it.
func (s *soup) given(a sriov.Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.has[a.Device]; ok {
		s.fault = errors.Join(s.fault, fmt.Errorf("device %s is %s's and %s's", a.Device, other.Owner, a.Owner))
	}
	s.has[a.Device] = a
}

func (s *soup) back(a sriov.Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, a.Device)
}

func (s *soup) end(a sriov.Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = append(s.gone, a)
}

// lateDEL repeats the DEL of some sandbox that is gone.
func (s *soup) lateDEL(ctx context.Context, dice *rand.Rand) {
	s.mu.Lock()
	if len(s.gone) == 0 {
		s.mu.Unlock()
		return
	}
	a := s.gone[dice.IntN(len(s.gone))]
	s.mu.Unlock()
	s.late.Add(1)
	if err := s.keeper.Release(ctx, a.Device, a.Owner); err != nil && ctx.Err() == nil {
		s.fail(fmt.Errorf("late DEL of %s: %w", a.Owner, err))
	}
}

// while the process is down, sandboxes end.
func (s *soup) while(dice *rand.Rand) {
	for device, a := range s.has {
		if dice.IntN(3) == 0 {
			s.kernel.End(a.Owner.Netns)
			delete(s.has, device)
			s.gone = append(s.gone, a)
		}
	}
}

// judge demands after each start that who was given a device has it whole, and that all
// others are the node's.
func (s *soup) judge(round int) {
	s.t.Helper()
	for device, a := range s.has {
		// A call that gave it back may have died after its first word.
		err := s.keeper.Check(context.Background(), device, a.Owner)
		if err != nil {
			s.t.Fatalf("round %d: %s has lost its device: %v", round, a.Owner, err)
		}
	}
	records, err := s.keeper.Records()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range records {
		a, ok := s.has[r.Device]
		if r.Phase != sriov.Attached || ok && a.Owner.Sandbox != r.Owner.Sandbox {
			s.t.Fatalf("round %d: record %+v; %s has it", round, r, a.Owner)
		}
		if !ok { // its ADD was answered by nobody: the runtime deletes the sandbox
			if err := s.keeper.Check(context.Background(), r.Device, r.Owner); err != nil {
				s.t.Fatalf("round %d: a record that is not true: %v", round, err)
			}
			s.kernel.End(r.Owner.Netns)
		}
	}
}

// TestSoupNames: while names are taken and given up by others, DELs fail and are
// repeated; in the end all have theirs.
func TestSoupNames(t *testing.T) {
	w := newWorld(t, "connectx-6")
	before := w.all()
	dice := rand.New(rand.NewPCG(7, 7))
	for n := range 60 {
		a := w.wish("0000:3b:00.2", fmt.Sprintf("p%d", n))
		w.attach(a)
		names := []string{"ens1f0np0v1", "ens1f0np0v0"}
		swap := dice.IntN(2) == 0
		if swap {
			w.kernel.Udev(names[0], names[1])
		}
		err := w.keeper.Release(context.Background(), a.Device, a.Owner)
		if swap != errors.Is(err, unix.EEXIST) {
			t.Fatalf("DEL %d: %v", n, err)
		}
		if swap {
			w.kernel.Udev(names[1], names[0])
			w.release(a)
		}
		w.same(before, "released")
	}
}
