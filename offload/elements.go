package offload

import (
	"iter"
	"strings"
)

// elements walks through a list as Open vSwitch prints keys and actions: elements
// separated by commas, each a name, with a value in parentheses or braces or without.
// A value may hold such a list. Text that is not closed ends with the text.
func elements(text string) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for text != "" {
			var element string
			element, text = first(text)
			name, value := element, ""
			if i := strings.IndexByte(element, '('); i >= 0 {
				name, value = element[:i], strings.TrimSuffix(element[i+1:], ")")
			}
			if name = strings.TrimSpace(name); name == "" && value == "" {
				continue
			}
			if !yield(name, value) {
				return
			}
		}
	}
}

// first cuts a list at its first comma that is in no parentheses.
func first(text string) (element, rest string) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '(', '{':
			depth++
		case ')', '}':
			depth--
		case ',':
			if depth <= 0 {
				return text[:i], text[i+1:]
			}
		}
	}
	return text, ""
}

// value is the value of the first element of a name; ok is false when there is none.
func value(text, name string) (string, bool) {
	for n, v := range elements(text) {
		if n == name {
			return v, true
		}
	}
	return "", false
}

// field is what follows name= in a list such as src=1.2.3.4/0.0.0.0,ttl=64; the mask
// is left out.
func field(text, name string) (string, bool) {
	v, _, ok := masked(text, name)
	return v, ok
}

// masked is field, with the mask; an exact one is "".
func masked(text, name string) (v, mask string, ok bool) {
	for text != "" {
		var element string
		element, text = first(text)
		if n, v, found := strings.Cut(element, "="); found && n == name {
			v, mask, _ = strings.Cut(v, "/")
			return v, mask, true
		}
	}
	return "", "", false
}

// matched tells whether a key's value is matched on at all: vswitchd prints also what
// it leaves open, with a mask of zeroes.
func matched(mask string) bool {
	if mask == "" {
		return true
	}
	for _, c := range strings.TrimPrefix(mask, "0x") {
		if c != '0' && c != ':' && c != '.' {
			return true
		}
	}
	return false
}

// nonzero reports whether a number, as numbers and addresses are printed, is not zero.
func nonzero(text string) bool { return matched(orZero(text)) }

func orZero(text string) string {
	if text == "" {
		return "0"
	}
	return text
}
