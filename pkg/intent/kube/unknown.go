package kube

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/multus"
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
	names := make([]string, len(paths))
	for n, p := range paths {
		names[n] = p[strings.LastIndexByte(p, '.')+1:]
	}
	if near := multus.Nearest(word, names); near != "" {
		return fmt.Errorf("%w: did you mean %s?", err, paths[slices.Index(names, near)])
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
