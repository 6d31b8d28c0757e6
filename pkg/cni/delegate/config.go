package delegate

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// ConfigNamed gives the text of the CNI configuration of a directory whose name is name:
// the first by file name, as runtimes take them. "" where there is none.
func ConfigNamed(dir, name string) string {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return ""
	}
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".conf", ".conflist", ".json":
		default:
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		var c struct {
			Name string `json:"name"`
		}
		if err == nil && json.Unmarshal(text, &c) == nil && c.Name == name {
			return string(text)
		}
	}
	return ""
}
