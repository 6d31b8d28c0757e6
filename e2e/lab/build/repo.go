package build

import (
	"fmt"
	"os"
	"path/filepath"
)

// FindRepo finds the checkout: as given, above this binary, or above the working directory.
func FindRepo(given string) (string, error) {
	starts := []string{given}
	if given == "" {
		starts = nil
		if self, err := os.Executable(); err == nil {
			starts = append(starts, filepath.Dir(self))
		}
		if wd, err := os.Getwd(); err == nil {
			starts = append(starts, wd)
		}
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "e2e", "lab", "go.mod")); err == nil {
				return filepath.Abs(dir)
			}
			if dir == "/" || dir == "." {
				break
			}
		}
	}
	return "", fmt.Errorf("no Portolan checkout at or above %q: set PORTOLAN_REPO", starts)
}
