package offload

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// longestFlow bounds the text of one flow, in bytes: those with many nested actions
// have some thousands.
const longestFlow = 1 << 20

// errNotFlow is a line that is no flow: a title, an empty one.
var errNotFlow = errors.New("no flow")

// Flows reads a dump (dpctl/dump-flows -m) flow by flow. A line that cannot be read
// comes as an error that quotes it, and reading goes on; an error of r ends it. The
// Flow is overwritten by the next; its strings are not.
func Flows(r io.Reader) iter.Seq2[*Flow, error] {
	return func(yield func(*Flow, error) bool) {
		lines := bufio.NewScanner(r)
		lines.Buffer(make([]byte, 64<<10), longestFlow)
		var f Flow
		core := -1
		for lines.Scan() {
			line := lines.Bytes()
			if len(line) == 0 {
				continue
			}
			if n, ok := title(line); ok {
				core = n
				continue
			}
			err := f.parse(string(line))
			if errors.Is(err, errNotFlow) {
				continue
			}
			f.ID.Core = core
			if !yield(&f, err) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, fmt.Errorf("dump of flows: %w", err))
		}
	}
}

// title reads a line that says whose flows follow; -1: the main thread's, or nobody's.
func title(line []byte) (core int, ok bool) {
	const mark = "flow-dump from "
	if len(line) < len(mark) || string(line[:len(mark)]) != mark {
		return 0, false
	}
	_, last, found := strings.Cut(string(line), "core: ")
	if !found {
		return -1, true
	}
	n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(last), ":"))
	if err != nil {
		return -1, true
	}
	return n, true
}

// parse reads one line: [ufid:U, ]KEYS, packets:N, bytes:N, used:T[, flags:F]
// [, offloaded:D][, dp:L], actions:A[, dp-extra-info:X].
func (f *Flow) parse(line string) error {
	*f = Flow{Used: Never}
	match, rest, ok := strings.Cut(line, ", packets:")
	if !ok {
		if strings.Contains(line, "recirc_id(") || strings.HasPrefix(line, "ufid:") {
			return fmt.Errorf("flow without a count of packets: %.200q", line)
		}
		return errNotFlow
	}
	bad := func(what string) error { return fmt.Errorf("flow with %s that cannot be read: %.200q", what, line) }
	ufid, named := strings.CutPrefix(match, "ufid:")
	if named {
		if ufid, match, ok = strings.Cut(ufid, ", "); !ok || !parseUFID(ufid, &f.ID.UFID) {
			return bad("a ufid")
		}
	} else {
		h := fnv.New128a()
		_, _ = io.WriteString(h, match) // a hash takes everything
		h.Sum(f.ID.UFID[:0])
	}
	f.Match = match
	stats, actions, ok := strings.Cut(rest, ", actions:")
	if !ok {
		return bad("no actions")
	}
	f.Actions, _, _ = strings.Cut(actions, ", dp-extra-info:")
	if !f.stats(stats) {
		return bad("statistics")
	}
	return f.keys(bad)
}

// stats reads what is between the keys and the actions, from behind "packets:".
func (f *Flow) stats(text string) bool {
	count, rest, _ := strings.Cut(text, ", ")
	var err error
	if f.Packets, err = strconv.ParseUint(count, 10, 64); err != nil {
		return false
	}
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, ", ")
		name, value, _ := strings.Cut(part, ":")
		switch name {
		case "bytes":
			if f.Bytes, err = strconv.ParseUint(value, 10, 64); err != nil {
				return false
			}
		case "used":
			if value == "never" {
				continue
			}
			seconds, err := strconv.ParseFloat(strings.TrimSuffix(value, "s"), 64)
			if err != nil || seconds < 0 || seconds > 1e9 {
				return false
			}
			f.Used = time.Duration(seconds * float64(time.Second))
		case "offloaded":
			switch value {
			case "yes":
				f.Degree = Whole
			case "partial":
				f.Degree = Partial
			default:
				return false
			}
		case "dp":
			f.Layer = value
		}
	}
	return true
}

// keys reads the two keys that every flow has, in whichever order.
func (f *Flow) keys(bad func(string) error) error {
	seen := 0
	for name, value := range elements(f.Match) {
		switch name {
		case "recirc_id":
			n, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				return bad("a recirc_id")
			}
			f.Recirc = uint32(n)
			seen++
		case "in_port":
			f.InPort = value
			seen++
		}
		if seen == 2 {
			return nil // what else there is, is read when it is asked for
		}
	}
	return nil
}

func parseUFID(text string, out *[16]byte) bool {
	if len(text) != 36 {
		return false
	}
	n := 0
	for i := 0; i < len(text); {
		if text[i] == '-' && (i == 8 || i == 13 || i == 18 || i == 23) {
			i++
			continue
		}
		if i+1 >= len(text) || n == len(out) {
			return false
		}
		hi, lo := nibble(text[i]), nibble(text[i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		out[n] = hi<<4 | lo
		n, i = n+1, i+2
	}
	return n == len(out)
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 16
}
