package kube

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

var unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)

// suggest adds to a decoder's complaint about a field that does not exist the one
// that was probably meant, with its path: of is the type that was decoded.
func suggest(err error, of reflect.Type) error {
	if err == nil {
		return nil
	}
	m := unknownField.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	word := m[1][strings.LastIndexByte(m[1], '.')+1:]
	paths := fieldPaths(of, "")
	best, least := "", 3 // more letters apart are another word
	for _, p := range paths {
		name := p[strings.LastIndexByte(p, '.')+1:]
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = p, d
		}
	}
	if best != "" {
		return fmt.Errorf("%w: did you mean %s?", err, best)
	}
	return fmt.Errorf("%w: the fields are %s", err, strings.Join(paths, ", "))
}

// fieldPaths lists the fields of a type as they are written, and of its own structs.
func fieldPaths(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || name == "" || name == "metadata" || name == "status" {
			continue
		}
		inside := f.Type
		if inside.Kind() == reflect.Pointer {
			inside = inside.Elem()
		}
		if inside.Kind() == reflect.Struct {
			out = append(out, fieldPaths(inside, prefix+name+".")...)
			continue
		}
		out = append(out, prefix+name)
	}
	slices.Sort(out)
	return out
}

// distance is how many letters have to be put in, left out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := above
			if a[i] != b[j] {
				change++
			}
			above = row[j+1]
			row[j+1] = min(change, above+1, row[j]+1)
		}
	}
	return row[len(b)]
}
