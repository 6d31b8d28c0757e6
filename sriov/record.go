package sriov

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/portolan-cni/portolan/pkg/durable"
)

// Phase is how far a device has come.
type Phase string

// The phases. A device without a record is the host's.
const (
	Attaching Phase = "attaching" // what was done of it is to be undone
	Attached  Phase = "attached"  // it is its owner's
	Detaching Phase = "detaching" // what is not undone yet is to be
)

// End is what one of a device's network devices was before anybody had it.
type End struct {
	Name     string   `json:"name"`
	AltNames []string `json:"altNames,omitempty"`
	Alias    string   `json:"alias,omitempty"`
	MAC      string   `json:"mac"`
	MTU      int      `json:"mtu"`
	Up       bool     `json:"up"`
}

func endOf(l Link) *End { return &End{l.Name, l.AltNames, l.Alias, l.MAC, l.MTU, l.Up} }

// Record is what is written down of a device before it is changed.
type Record struct {
	Version     int        `json:"version"`
	Boot        string     `json:"boot"` // of the machine; in another one nothing of this is true
	Phase       Phase      `json:"phase"`
	Device      string     `json:"device"`
	Kind        Kind       `json:"kind"`
	Owner       Owner      `json:"owner"`
	Wanted      Attachment `json:"wanted"`
	Userspace   bool       `json:"userspace,omitempty"`   // there is no network device to give
	Representor string     `json:"representor,omitempty"` // by which it is a port of the switch
	RDMA        string     `json:"rdma,omitempty"`        // the RDMA device that was moved with it

	// What was: nil where the device has no such thing.
	Netdev *End     `json:"netdev,omitempty"`
	Port   *End     `json:"port,omitempty"` // the representor's
	VF     *VFState `json:"vf,omitempty"`
	// Function is the function's MAC as its port had it; "": it was not set that way.
	Function string `json:"function,omitempty"`
}

const recordVersion = 1

// journal keeps one record a device, as a file of a directory. Each write is whole, or was
// never made.
type journal struct {
	dir    string
	atStep func(string)
	seen   *seen
}

// seen are records as they were listed last, each with the file that it was read from: one
// that is replaced is another file.
type seen struct {
	mu      sync.Mutex // guards records
	records map[string]seenRecord
}

type seenRecord struct {
	file   fs.FileInfo
	record Record
}

// all reads the records there are, and of those only what is news. Errors are of single
// records, and say nothing of the others.
func (j journal) all() ([]Record, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("records of devices: %w", err)
	}
	j.seen.mu.Lock()
	defer j.seen.mu.Unlock()
	now := make(map[string]seenRecord, len(j.seen.records))
	var out []Record
	var errs []error
	for _, e := range entries { // in their order
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		file, err := e.Info()
		if err != nil {
			continue // it has gone
		}
		was, known := j.seen.records[id]
		if !known || !os.SameFile(was.file, file) || !was.file.ModTime().Equal(file.ModTime()) {
			r, err := j.read(id)
			if errs = append(errs, err); r == nil {
				continue
			}
			was = seenRecord{file, *r}
		}
		now[id] = was
		out = append(out, was.record)
	}
	j.seen.records = now
	return out, errors.Join(errs...)
}

func (j journal) path(id string) string { return filepath.Join(j.dir, id+".json") }

// read returns the record of a device, nil where there is none.
func (j journal) read(id string) (*Record, error) {
	text, err := os.ReadFile(j.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of device %s: %w", id, err)
	}
	r := &Record{}
	if err := json.Unmarshal(text, r); err != nil || r.Version != recordVersion || r.Device != id {
		return nil, &DeviceError{id, j.path(id), fmt.Sprintf("no record of version %d of this device: %.80q", recordVersion, text),
			"look whose the device is (ip link, ovs-vsctl), give it back to the node by hand, and remove the file", err}
	}
	return r, nil
}

// write makes a record what it is to be.
func (j journal) write(r *Record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.Write(j.path(r.Device), 0o600, append(text, '\n')); err != nil {
		return fmt.Errorf("record of device %s: %w", r.Device, err)
	}
	j.at("record written")
	return nil
}

func (j journal) remove(id string) error {
	if err := durable.Remove(j.path(id)); err != nil {
		return fmt.Errorf("record of device %s: %w", id, err)
	}
	j.at("record removed")
	return nil
}

// list returns the ids of the devices that have records.
func (j journal) list() ([]string, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("records of devices: %w", err)
	}
	var out []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (j journal) at(step string) {
	if j.atStep != nil {
		j.atStep(step)
	}
}
