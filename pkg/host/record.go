package host

import (
	"cmp"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
)

// recordFile holds what Set made that bears no mark of ours in the kernel.
const recordFile = "host.json"

// record is that file. An entry is written before the change that it stands for,
// so it may name what was never made, never the other way round.
type record struct {
	Addresses []ownedAddress      `json:"addresses,omitempty"`
	Sysctls   map[string]string   `json:"sysctls,omitempty"`  // path → the value before ours
	Features  map[string][]string `json:"features,omitempty"` // link → ethtool features that were on
	Down      []string            `json:"down,omitempty"`     // links that were down
}

type ownedAddress struct {
	Link   string       `json:"link"`
	Prefix netip.Prefix `json:"prefix"`
}

func (r record) clone() record {
	return record{slices.Clone(r.Addresses), maps.Clone(r.Sysctls), maps.Clone(r.Features), slices.Clone(r.Down)}
}

func (r record) equal(o record) bool {
	return slices.Equal(r.Addresses, o.Addresses) && maps.Equal(r.Sysctls, o.Sysctls) &&
		maps.EqualFunc(r.Features, o.Features, slices.Equal[[]string]) && slices.Equal(r.Down, o.Down)
}

// claim adds an address.
func (r *record) claim(a ownedAddress) {
	if slices.Contains(r.Addresses, a) {
		return
	}
	r.Addresses = append(r.Addresses, a)
	// In an order of their own: the file must not depend on which came first.
	slices.SortFunc(r.Addresses, func(a, b ownedAddress) int {
		return cmp.Or(cmp.Compare(a.Link, b.Link), a.Prefix.Compare(b.Prefix))
	})
}

// release forgets an address.
func (r *record) release(a ownedAddress) {
	r.Addresses = slices.DeleteFunc(r.Addresses, func(b ownedAddress) bool { return a == b })
}

// store is the record with its file; saved is what the file holds.
type store struct {
	dir   string
	saved record
	now   record
	read  bool
}

// load reads the file once.
func (s *store) load() error {
	if s.read {
		return nil
	}
	if _, err := readJSON(filepath.Join(s.dir, recordFile), &s.saved); err != nil {
		return err
	}
	if s.saved.Sysctls == nil {
		s.saved.Sysctls = map[string]string{}
	}
	if s.saved.Features == nil {
		s.saved.Features = map[string][]string{}
	}
	s.now, s.read = s.saved.clone(), true
	return nil
}

// save writes the file when it differs.
func (s *store) save() error {
	if s.now.equal(s.saved) {
		return nil
	}
	if err := writeJSON(filepath.Join(s.dir, recordFile), s.now); err != nil {
		return err
	}
	s.saved = s.now.clone()
	return nil
}
