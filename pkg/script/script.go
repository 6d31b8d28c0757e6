package script

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Script is a parsed txtar archive.
type Script struct {
	Commands []Command
	// Once says that the script is not for expansion: its point is one order of
	// events. Written as the command "once".
	Once    bool
	archive *txtar.Archive
}

// Command is one line of a script.
type Command struct {
	Line int
	Not  bool // it must fail: the line begins with "!"
	Verb string
	Args []string
}

// String is the command as it could be written.
func (c Command) String() string {
	text := strings.Join(append([]string{c.Verb}, c.Args...), " ")
	if c.Not {
		return "! " + text
	}
	return text
}

// Parse reads a script. A command's words are separated by blanks; one in single
// quotes may hold blanks, and two single quotes in it are one. "#" begins a comment.
func Parse(text []byte) (*Script, error) {
	// go-internal 1.16.0 panics on a file marker without a name.
	for n, line := range strings.Split(string(text), "\n") {
		if strings.TrimSpace(line) == "-- --" {
			return nil, fmt.Errorf("line %d: a file without a name", n+1)
		}
	}
	s := &Script{archive: txtar.Parse(text)}
	var errs []error
	for n, line := range strings.Split(string(s.archive.Comment), "\n") {
		words, err := split(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n+1, err))
		}
		c := Command{Line: n + 1}
		if len(words) > 0 && words[0] == "!" {
			c.Not, words = true, words[1:]
		}
		if len(words) == 0 {
			continue
		}
		c.Verb, c.Args = words[0], words[1:]
		if c.Verb == "once" {
			s.Once = true
			continue
		}
		if _, ok := verbs[c.Verb]; !ok {
			errs = append(errs, fmt.Errorf("line %d: no verb %q", n+1, c.Verb))
		}
		s.Commands = append(s.Commands, c)
	}
	return s, errors.Join(errs...)
}

// Has reports whether a script uses any of some verbs.
func (s *Script) Has(verbs ...string) bool {
	return slices.ContainsFunc(s.Commands, func(c Command) bool { return slices.Contains(verbs, c.Verb) })
}

// File returns the content of one of the script's files.
func (s *Script) File(name string) ([]byte, bool) {
	for _, f := range s.archive.Files {
		if f.Name == name {
			return f.Data, true
		}
	}
	return nil, false
}

// SetFile replaces a file's content, or adds the file.
func (s *Script) SetFile(name string, data []byte) {
	for i, f := range s.archive.Files {
		if f.Name == name {
			s.archive.Files[i].Data = data
			return
		}
	}
	s.archive.Files = append(s.archive.Files, txtar.File{Name: name, Data: data})
}

// Format is the script's text.
func (s *Script) Format() []byte { return txtar.Format(s.archive) }

// split cuts a line into words.
func split(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t\r")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		if line[0] != '\'' {
			n := strings.IndexAny(line, " \t\r")
			if n < 0 {
				n = len(line)
			}
			words, line = append(words, line[:n]), line[n:]
			continue
		}
		word := ""
		for line = line[1:]; ; line = line[1:] {
			n := strings.IndexByte(line, '\'')
			if n < 0 {
				return nil, errors.New("a single quote is not closed")
			}
			word, line = word+line[:n], line[n+1:]
			if !strings.HasPrefix(line, "'") {
				break
			}
			word += "'"
		}
		words = append(words, word)
	}
}

// Run carries out a script's commands on a shell, and stops at the first that
// does not do what the script says. With update, cmp writes what it found into
// the script instead of comparing.
func (s *Script) Run(sh *Shell, update bool) error {
	r := &runner{shell: sh, script: s, update: update}
	for _, c := range s.Commands {
		if err := r.run(c); err != nil {
			return fmt.Errorf("line %d: %s: %w", c.Line, c, err)
		}
	}
	return nil
}

// runner is one run of a script.
type runner struct {
	shell  *Shell
	script *Script
	update bool
	last   string // output of the last verb that gives any
}

func (r *runner) run(c Command) error {
	v, ok := verbs[c.Verb]
	if !ok {
		return errors.New("no such verb")
	}
	if n := len(c.Args); n < v.least || (v.most >= 0 && n > v.most) {
		return fmt.Errorf("usage: %s %s", c.Verb, v.usage)
	}
	out, err := v.run(r, c.Args)
	if c.Not {
		if err == nil {
			return errors.New("it succeeded, and should have failed")
		}
		if !v.asks {
			r.last = err.Error() + "\n"
		}
		return nil
	}
	if err == nil && v.says {
		r.last = out
	}
	return err
}
