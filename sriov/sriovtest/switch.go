package sriovtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/portolan-cni/portolan/sriov"
)

// Switch plays the software switch.
type Switch struct {
	// After is called after each change, and may panic.
	After func(op string)

	mu    sync.Mutex // guards what follows
	ports map[string]sriov.Plugged
	fails map[string]error
}

// NewSwitch makes one without ports.
func NewSwitch() *Switch {
	return &Switch{ports: map[string]sriov.Plugged{}, fails: map[string]error{}}
}

// Fail makes a method fail until it is given nil.
func (s *Switch) Fail(op string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[op] = err
}

func (s *Switch) done(op string) {
	if s.After != nil {
		s.After(op)
	}
}

// Plug implements sriov.Switch.
func (s *Switch) Plug(_ context.Context, representor string, p sriov.Plugged) error {
	s.mu.Lock()
	if err := s.fails["Plug"]; err != nil {
		s.mu.Unlock()
		return err
	}
	if had, ok := s.ports[representor]; ok && had.Owner.Sandbox != p.Owner.Sandbox {
		s.mu.Unlock()
		return fmt.Errorf("%s is %s's: %w", representor, had.Owner, ErrPlugged)
	}
	s.ports[representor] = p
	s.mu.Unlock()
	s.done("Plug")
	return nil
}

// Unplug implements sriov.Switch.
func (s *Switch) Unplug(_ context.Context, representor string, o sriov.Owner) (settled func(context.Context), err error) {
	s.mu.Lock()
	if err := s.fails["Unplug"]; err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if had, ok := s.ports[representor]; ok && had.Owner.Sandbox == o.Sandbox && had.Owner.IfName == o.IfName {
		delete(s.ports, representor)
	}
	s.mu.Unlock()
	s.done("Unplug")
	return func(context.Context) { s.done("settled") }, nil
}

// WaitInstalled implements sriov.Switch.
func (s *Switch) WaitInstalled(context.Context, string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails["WaitInstalled"]
}

// Port is what a representor is a port of; false when it is none.
func (s *Switch) Port(representor string) (sriov.Plugged, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.ports[representor]
	return p, ok
}

// Snapshot lists the ports with their sandboxes.
func (s *Switch) Snapshot() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(s.ports)) {
		fmt.Fprintf(&out, "port %s of %s\n", name, s.ports[name].Owner.Sandbox)
	}
	return out.String()
}
