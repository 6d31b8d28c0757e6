package multus

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// object is a JSON object whose keys are exact: encoding/json takes "Subnets" for
// "subnets" and the last of two like keys, and another reader may not.
type object struct {
	name   string // of the object, for errors
	fields map[string]json.RawMessage
}

// readObject reads one JSON object and nothing after it.
func readObject(name string, text []byte) (*object, error) {
	o := &object{name, map[string]json.RawMessage{}}
	dec := json.NewDecoder(bytes.NewReader(text))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, o.broken(err, text)
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, o.broken(err, text)
		}
		key := token.(string) // the decoder gives nothing else here
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, o.broken(err, text)
		}
		if _, twice := o.fields[key]; twice {
			return nil, o.wrong(key, "given twice", "leave one of them")
		}
		o.fields[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, o.broken(err, text)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &FieldError{name, "", "there is text after the JSON object", "remove it"}
	}
	return o, nil
}

func (o *object) broken(err error, text []byte) error {
	found := quoted(string(text)) + " is no JSON object"
	if err != nil {
		found += fmt.Sprintf(" (%v)", err)
	}
	return &FieldError{o.name, "", found, "write {…}"}
}

func (o *object) wrong(field, found, do string) error {
	return &FieldError{o.name, field, found, do}
}

// into decodes a field, if it is there; want says what it has to be.
func (o *object) into(field, want string, value any) error {
	raw, ok := o.fields[field]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, value); err != nil || string(raw) == "null" {
		return o.wrong(field, string(truncated(raw)), "write "+want)
	}
	return nil
}

func truncated(raw []byte) []byte {
	const most = 120
	if len(raw) > most {
		return append(slices.Clone(raw[:most]), "…"...)
	}
	return raw
}

// only refuses fields that are not known; a dot makes a key another's
// (specification section 4.1.2.1, and CNI's own "cni.dev/…").
func (o *object) only(known []string) error {
	var unknown []string
	for key := range o.fields {
		if !slices.Contains(known, key) && !strings.Contains(key, ".") {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	key := slices.Min(unknown)
	do := "remove it: the fields are " + strings.Join(known, ", ")
	if near := Nearest(key, known); near != "" {
		do = "did you mean " + near + "?"
	}
	return &FieldError{o.name, "", fmt.Sprintf("field %s is not known", quoted(key)), do}
}

// Nearest is the known word that is at most two letters from word, but for case; "": none.
func Nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
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
