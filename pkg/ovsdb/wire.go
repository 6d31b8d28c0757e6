package ovsdb

import (
	"encoding/json"
	"fmt"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// operation is one operation of a transact call (RFC 7047 §5.2). libovsdb's has
// sets and maps whose order on the wire varies; the golden tests want one text.
type operation struct {
	Op        string                 `json:"op"`
	Table     string                 `json:"table,omitempty"`
	UUID      string                 `json:"uuid,omitempty"`
	Where     *[]condition           `json:"where,omitempty"`
	Row       map[string]columnValue `json:"row,omitzero"` // an insert without columns has an empty one
	Mutations []mutation             `json:"mutations,omitempty"`
	Columns   []string               `json:"columns,omitempty"`
	Lock      string                 `json:"lock,omitempty"`
}

// condition is [column, function, value].
type condition [3]any

// mutation is [column, mutator, value].
type mutation [3]any

// everyRow is the condition that all rows meet: for singletons.
func everyRow() *[]condition { return &[]condition{} }

func rowWithUUID(id string) *[]condition {
	return &[]condition{{"_uuid", "==", [2]string{"uuid", id}}}
}

// columnValue is a whole column's value on the wire.
type columnValue struct {
	schema rows.ColumnSchema
	value  rows.Value
	uuid   func(rows.Ref) string
}

// MarshalJSON writes the value as RFC 7047 §5.1 has it. An empty value of a
// column that must have one is the type's default.
func (v columnValue) MarshalJSON() ([]byte, error) {
	c := v.schema
	switch {
	case c.Map:
		return json.Marshal(v.entries(v.value))
	case c.Scalar && len(v.value) == 1:
		return json.Marshal(v.atom(v.value[0].Key))
	case c.Scalar && !c.Optional && len(v.value) == 0 && c.Key != rows.Reference:
		return json.Marshal(v.atom(rows.Atom{Kind: c.Key}))
	}
	return json.Marshal(v.elements(v.value))
}

// elements is ["set", [...]] of the keys.
func (v columnValue) elements(value rows.Value) [2]any {
	list := make([]any, 0, len(value))
	for _, p := range value {
		list = append(list, v.atom(p.Key))
	}
	return [2]any{"set", list}
}

// entries is ["map", [[k, v], ...]].
func (v columnValue) entries(value rows.Value) [2]any {
	list := make([][2]any, 0, len(value))
	for _, p := range value {
		list = append(list, [2]any{v.atom(p.Key), v.atom(p.Value)})
	}
	return [2]any{"map", list}
}

func (v columnValue) atom(a rows.Atom) any {
	switch a.Kind {
	case rows.String:
		return a.Str
	case rows.Int:
		return a.Num
	case rows.Bool:
		return a.Num != 0
	}
	return [2]string{"uuid", v.uuid(a.Ref)}
}

// result is one operation's result. A transaction's error stands at its
// operation's place, or after the last when the commit failed.
type result struct {
	Count   int                          `json:"count"`
	Rows    []map[string]json.RawMessage `json:"rows"`
	Error   string                       `json:"error"`
	Details string                       `json:"details"`
}

func (r result) String() string {
	if r.Details == "" {
		return r.Error
	}
	return fmt.Sprintf("%s: %s", r.Error, r.Details)
}

// errorOf finds a transaction's error: "" if there is none.
func errorOf(results []result) string {
	for _, r := range results {
		if r.Error != "" {
			return r.String()
		}
	}
	return ""
}
