package multus

import "fmt"

// FieldError is a value that a user wrote and that cannot be used.
type FieldError struct {
	Object string // what was read, such as "NetworkAttachmentDefinition ns/name: spec.config"
	Field  string // the key; "" for the text as a whole
	Found  string // what is there
	Do     string // what to do
}

// Error is "Object: Field is Found; Do".
func (e *FieldError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s; %s", e.Object, e.Found, e.Do)
	}
	return fmt.Sprintf("%s: %s is %s; %s", e.Object, e.Field, e.Found, e.Do)
}

// DefinitionObject is how errors name a NetworkAttachmentDefinition's configuration.
func DefinitionObject(key string) string {
	return "NetworkAttachmentDefinition " + key + ": spec.config"
}

// quoted is a value as errors show it: whole where it is short.
func quoted(text string) string {
	const most = 120
	if len(text) > most {
		text = text[:most] + "…"
	}
	return fmt.Sprintf("%q", text)
}
