package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFenceIsHeldOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "portolan", "agent.lock")
	first, err := TakeFence(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = TakeFence(t.Context(), path, 100*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) || !strings.Contains(err.Error(), path) {
		t.Fatalf("second: %v, want an error that names the first", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := TakeFence(ctx, path, time.Hour); err == nil {
		t.Fatal("an interrupted wait got the fence")
	}
	time.AfterFunc(100*time.Millisecond, func() { first.Close() })
	second, err := TakeFence(t.Context(), path, 10*time.Second)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	second.Close()
}
