package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOptionsThatKconfigDropsAreNamed(t *testing.T) {
	dir := t.TempDir()
	asked, made := filepath.Join(dir, "asked"), filepath.Join(dir, "made")
	for file, text := range map[string]string{
		asked: "# a comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=y\nCONFIG_N=8\n",
		made:  "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=8\nCONFIG_X=y\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkConfig(asked, made); err == nil || !strings.Contains(err.Error(), "CONFIG_C=y (became n)") || strings.Contains(err.Error(), "CONFIG_B") {
		t.Errorf("got %v", err)
	}
	if err := checkConfig(made, made); err != nil {
		t.Error(err)
	}
}
