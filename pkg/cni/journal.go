package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/durable"
)

// Holding are the addresses that an interface has been given.
type Holding struct {
	Key       string // of the attachment, as Wish's
	Network   string
	Addresses []netip.Prefix
}

// Held is what a Journal remembers of one interface's addresses.
type Held struct {
	Pod Pod // only namespace, name and UID are recorded
	Holding
	Freed time.Time // since when they rest; zero: they are the pod's
}

// Journal remembers over a restart which addresses were given: also of pods that
// have no OVS port now, and of those that are gone, whose addresses rest because
// somebody may still believe in them. FileJournal implements it.
type Journal interface {
	// Hold records addresses before anybody is told of them.
	Hold(p Pod, h Holding) error
	// Free records that the addresses of a pod's interface rest.
	Free(uid, key string, since time.Time) error
	// List returns what is held or rests, in no order.
	List() ([]Held, error)
}

// compactAt is how many lines a journal may have beside twice what it had when it
// was last written anew.
const compactAt = 1024

// FileJournal is a Journal in a file, of which each line is one event:
//
//	hold UID NAMESPACE/NAME [KEY=NETWORK] ADDRESS/LENGTH...
//	free UID SECONDS [KEY]
//
// where there is no KEY on the default network.
// A line is one write, which survives the process. It is not synced to the disk, as
// the whole file is now and then: after a loss of power no sandbox lives, and what
// lives is annotated.
type FileJournal struct {
	path string

	mu    sync.Mutex // guards what follows
	file  *os.File
	held  map[string]Held // by owner; freed ones for as long as they rest
	lines int
	base  int // lines when it was last written anew
}

// OpenJournal reads a journal, or begins one, and writes it anew without what is
// over. Lines that cannot be read are told to log and left out: a torn one is the
// last that a machine wrote before it lost power.
func OpenJournal(path string, log *slog.Logger) (*FileJournal, error) {
	j := &FileJournal{path: path, held: map[string]Held{}}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("journal of addresses: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("journal of addresses: %w", err)
	}
	for line := range bytes.Lines(data) {
		if err := j.read(string(line)); err != nil {
			log.Warn("a line of the journal of addresses is left out", "file", path, "line", strings.TrimSpace(string(line)), "err", err)
		}
	}
	return j, j.compact()
}

// Close closes the file.
func (j *FileJournal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Close()
}

func (j *FileJournal) read(line string) error {
	words := strings.Fields(line)
	switch {
	case len(words) >= 4 && words[0] == "hold":
		h := Held{}
		h.Pod.UID = words[1]
		h.Pod.Namespace, h.Pod.Name, _ = strings.Cut(words[2], "/")
		h.Key, h.Network = defaultNetwork, defaultNetwork
		addresses := words[3:]
		if key, network, named := strings.Cut(addresses[0], "="); named {
			h.Key, h.Network, addresses = key, network, addresses[1:]
		}
		for _, w := range addresses {
			a, err := netip.ParsePrefix(w)
			if err != nil {
				return err
			}
			h.Addresses = append(h.Addresses, a)
		}
		j.held[h.owner()] = h
		return nil
	case (len(words) == 3 || len(words) == 4) && words[0] == "free":
		seconds, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return err
		}
		owner := words[1]
		if len(words) == 4 {
			owner = ownerOf(words[1], words[3])
		}
		if h, ok := j.held[owner]; ok {
			h.Freed = time.Unix(seconds, 0)
			j.held[owner] = h
		}
		return nil
	}
	return errors.New("neither hold UID POD ADDRESS... nor free UID SECONDS")
}

// Hold implements Journal.
func (j *FileJournal) Hold(p Pod, holding Holding) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	h := Held{Pod: p, Holding: holding}
	if had, ok := j.held[h.owner()]; ok && had.Freed.IsZero() && had.Network == h.Network && slices.Equal(had.Addresses, h.Addresses) {
		return nil
	}
	h.Addresses = slices.Clone(h.Addresses)
	if err := j.append(h.hold()); err != nil {
		return err
	}
	j.held[h.owner()] = h
	return nil
}

// Free implements Journal.
func (j *FileJournal) Free(uid, key string, since time.Time) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	h, ok := j.held[ownerOf(uid, key)]
	if !ok || !h.Freed.IsZero() {
		return nil
	}
	h.Freed = since
	j.held[h.owner()] = h
	return j.append(h.free())
}

// List implements Journal.
func (j *FileJournal) List() ([]Held, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]Held, 0, len(j.held))
	for _, h := range j.held {
		out = append(out, h)
	}
	return out, nil
}

func (h Held) hold() string {
	line := "hold " + h.Pod.UID + " " + h.Pod.String()
	if h.Key != defaultNetwork {
		line += " " + h.Key + "=" + h.Network
	}
	for _, a := range h.Addresses {
		line += " " + a.String()
	}
	return line + "\n"
}

func (h Held) free() string {
	if h.Key == defaultNetwork {
		return fmt.Sprintf("free %s %d\n", h.Pod.UID, h.Freed.Unix())
	}
	return fmt.Sprintf("free %s %d %s\n", h.Pod.UID, h.Freed.Unix(), h.Key)
}

func (h Held) owner() string { return ownerOf(h.Pod.UID, h.Key) }

// over reports whether nobody has to know of h any more. A time of the future is a
// clock that was set back: it tells nothing.
func (h Held) over(now time.Time, rest time.Duration) bool {
	return !h.Freed.IsZero() && !h.Freed.After(now) && now.Sub(h.Freed) > rest
}

func (j *FileJournal) append(line string) error {
	if j.lines > compactAt+2*j.base {
		if err := j.compact(); err != nil {
			return err
		}
	}
	if _, err := j.file.WriteString(line); err != nil {
		return fmt.Errorf("journal of addresses: %w", err)
	}
	j.lines++
	return nil
}

// journalRest is how long a freed address is remembered: twice its quarantine, so
// that what has just ended is not cut short by a clock that is corrected.
const journalRest = 2 * time.Minute

// compact writes the file anew, under another name first.
func (j *FileJournal) compact() error {
	var text strings.Builder
	now, lines := time.Now(), 0
	for owner, h := range j.held {
		if h.over(now, journalRest) {
			delete(j.held, owner)
			continue
		}
		text.WriteString(h.hold())
		lines++
		if !h.Freed.IsZero() {
			text.WriteString(h.free())
			lines++
		}
	}
	if err := durable.Write(j.path, 0o600, []byte(text.String())); err != nil {
		return fmt.Errorf("journal of addresses: %w", err)
	}
	file, err := os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("journal of addresses: %w", err)
	}
	if j.file != nil {
		err = j.file.Close()
	}
	j.file, j.lines, j.base = file, lines, lines
	return err
}
