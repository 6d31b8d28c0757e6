package ovsdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// jsonText is JSON that is read from left to right, without a tree of it being made.
// What encoding/json has seen whole already needs no more checks than not to be
// misread, so some that is not JSON passes.
type jsonText struct {
	b  []byte
	at int
}

var errCut = errors.New("the JSON text ends too early")

// peek is the next byte that is no space; 0 at the end.
func (t *jsonText) peek() byte {
	for ; t.at < len(t.b); t.at++ {
		switch c := t.b[t.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// take steps over c if that is next.
func (t *jsonText) take(c byte) bool {
	if t.peek() != c {
		return false
	}
	t.at++
	return true
}

// expect is take that must succeed.
func (t *jsonText) expect(c byte) error {
	if t.take(c) {
		return nil
	}
	if t.at >= len(t.b) {
		return errCut
	}
	return fmt.Errorf("%.40s found, wanted %c", t.b[t.at:], c)
}

// end fails unless all is read.
func (t *jsonText) end() error {
	if t.peek() == 0 && t.at >= len(t.b) {
		return nil
	}
	return fmt.Errorf("%.40s found, wanted the end", t.b[t.at:])
}

// word steps over a word if that is next.
func (t *jsonText) word(w string) bool {
	t.peek()
	if len(t.b)-t.at < len(w) || string(t.b[t.at:t.at+len(w)]) != w {
		return false
	}
	t.at += len(w)
	return true
}

// literal steps over a string with its quotes; plain tells whether what it says is
// what stands between them.
func (t *jsonText) literal() (s []byte, plain bool, err error) {
	if err := t.expect('"'); err != nil {
		return nil, false, err
	}
	from := t.at - 1
	plain = true
	for ; t.at < len(t.b); t.at++ {
		switch c := t.b[t.at]; {
		case c == '"':
			t.at++
			return t.b[from:t.at], plain, nil
		case c == '\\':
			plain = false
			t.at++
		case c < ' ' || c >= 0x80:
			plain = false
		}
	}
	t.at = len(t.b) // a backslash may have been the last
	return nil, false, errCut
}

// str reads a string; it may share the text's memory.
func (t *jsonText) str() ([]byte, error) {
	raw, plain, err := t.literal()
	if err != nil {
		return nil, err
	}
	if plain {
		return raw[1 : len(raw)-1], nil
	}
	var s string
	err = json.Unmarshal(raw, &s)
	return []byte(s), err
}

// integer reads a number that must be one.
func (t *jsonText) integer() (int64, error) {
	t.peek()
	from := t.at
	for t.at < len(t.b) && bytes.IndexByte([]byte("+-.0123456789eE"), t.b[t.at]) >= 0 {
		t.at++
	}
	return strconv.ParseInt(string(t.b[from:t.at]), 10, 64)
}

// list reads [...], with each for every element.
func (t *jsonText) list(each func() error) error {
	if err := t.expect('['); err != nil {
		return err
	}
	if t.take(']') {
		return nil
	}
	for {
		if err := each(); err != nil {
			return err
		}
		if t.take(']') {
			return nil
		}
		if err := t.expect(','); err != nil {
			return err
		}
	}
}

// object reads {...}, with each for every member, which reads the value.
func (t *jsonText) object(each func(key []byte) error) error {
	if err := t.expect('{'); err != nil {
		return err
	}
	if t.take('}') {
		return nil
	}
	for {
		key, err := t.str()
		if err != nil {
			return err
		}
		if err := t.expect(':'); err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
		if t.take('}') {
			return nil
		}
		if err := t.expect(','); err != nil {
			return err
		}
	}
}

// skip steps over one value of any kind.
func (t *jsonText) skip() error {
	depth := 0
	for {
		switch c := t.peek(); c {
		case 0:
			return errCut
		case '"':
			if _, _, err := t.literal(); err != nil {
				return err
			}
		case '{', '[':
			depth++
			t.at++
		case '}', ']':
			depth--
			t.at++
		case ',', ':':
			t.at++
			continue
		default:
			for t.at < len(t.b) && bytes.IndexByte([]byte(" \t\n\r,:[]{}\""), t.b[t.at]) < 0 {
				t.at++
			}
		}
		if depth <= 0 {
			return nil
		}
	}
}
