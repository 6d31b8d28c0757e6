package durable

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		text string
		mode fs.FileMode
	}{{"a long one", 0o600}, {"short", 0o644}, {"", 0o755}, {"again", 0o600}} {
		if err := Write(path, c.mode, []byte(c.text)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != c.mode || read(t, path) != c.text {
			t.Errorf("%v %v: %q, want %+v", err, info.Mode(), read(t, path), c)
		}
		if got := names(t, dir); !slices.Equal(got, []string{"f"}) {
			t.Errorf("there is %q", got)
		}
	}
	for range 2 {
		if err := Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("there is %q", got)
	}
	if err := Remove(filepath.Join(dir, "none", "f")); err != nil {
		t.Errorf("a file of a directory that is gone: %v", err)
	}
}

// TestKillBetweenSteps stops after each step, as a kill does: what it had opened is
// closed, and nothing is undone. Who reads finds the old or the new; the next write
// is not in its way, and leaves nothing of it, nor does a removal.
func TestKillBetweenSteps(t *testing.T) {
	all := len((&replacement{}).steps())
	for n := range all + 1 {
		dir := t.TempDir()
		path := filepath.Join(dir, "f.json")
		kill := func() {
			r := &replacement{path: path, beside: beside(path), mode: 0o600, content: strings.NewReader("new, and longer")}
			for _, step := range r.steps()[:n] {
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			for _, f := range []*os.File{r.lock, r.file} {
				if f != nil {
					f.Close()
				}
			}
		}
		if err := Write(path, 0o600, []byte("old")); err != nil {
			t.Fatal(err)
		}
		kill()
		want := "old"
		if n >= all-1 { // renamed
			want = "new, and longer"
		}
		if got := read(t, path); got != want {
			t.Errorf("after %d steps: %q", n, got)
		}
		if found, err := filepath.Glob(filepath.Join(dir, "*.json")); err != nil || len(found) != 1 {
			t.Errorf("after %d steps a list has %q", n, found)
		}
		if err := Write(path, 0o600, []byte("next")); err != nil || read(t, path) != "next" {
			t.Errorf("after %d steps: %v, %q", n, err, read(t, path))
		}
		if got := names(t, dir); !slices.Equal(got, []string{"f.json"}) {
			t.Errorf("after %d steps and the next write there is %q", n, got)
		}
		kill()
		if err := Sweep(dir); err != nil || !slices.Equal(names(t, dir), []string{"f.json"}) {
			t.Errorf("after %d steps and a sweep: %v, there is %q", n, err, names(t, dir))
		}
		kill()
		if err := Remove(path); err != nil || len(names(t, dir)) > 0 {
			t.Errorf("after %d steps and a removal: %v, there is %q", n, err, names(t, dir))
		}
	}
}

// TestFailureLeavesWhatWas fails at each step that can.
func TestFailureLeavesWhatWas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := Write(path, 0o600, []byte("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken off")
	if err := Copy(path, 0o600, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("content that ends too early: %v", err)
	}
	if read(t, path) != "old" || len(names(t, dir)) != 1 {
		t.Errorf("%q, there is %q", read(t, path), names(t, dir))
	}
	if err := os.MkdirAll(filepath.Join(dir, "d", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "d"), 0o600, nil); err == nil || !strings.Contains(err.Error(), "rename") {
		t.Errorf("over a directory: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"d", "f"}) {
		t.Errorf("there is %q", got)
	}
	if err := Write(filepath.Join(dir, "none", "f"), 0o600, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// pattern is a content that tells whether it is whole: lines of one number, and how
// many there are.
func pattern(n int) []byte {
	lines := 1 + n%300
	return append(bytes.Repeat(fmt.Appendf(nil, "%06d\n", n), lines), fmt.Appendf(nil, "%d lines\n", lines)...)
}

func whole(text string) error {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	n := len(lines) - 1
	if lines[n] != fmt.Sprintf("%d lines", n) || strings.Count(text, lines[0]+"\n") != n {
		return fmt.Errorf("torn: %d lines, the last one %q", n, lines[n])
	}
	return nil
}

// TestWritersTakeTurns has several write one file, and another read it.
func TestWritersTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, 0o600, pattern(0)); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for n := range 50 {
				if err := Write(path, 0o600, pattern(w*1000+n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for {
		if err := whole(read(t, path)); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
			if got := names(t, filepath.Dir(path)); !slices.Equal(got, []string{"f"}) {
				t.Errorf("there is %q", got)
			}
			return
		default:
		}
	}
}

// TestProgramIsFree replaces a program that is started all the time: what has its name
// is never open to be written, which the kernel would refuse to start (ETXTBSY).
func TestProgramIsFree(t *testing.T) {
	data, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	r := &replacement{path: filepath.Join(t.TempDir(), "true"), mode: 0o755, content: bytes.NewReader(data)}
	r.beside = beside(r.path)
	for _, step := range r.steps()[:4] {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(r.path).CombinedOutput(); err != nil {
		t.Errorf("between two steps: %v: %s", err, out)
	}
	if err := r.keep(); err != nil {
		t.Fatal(err)
	}
}

// writing is the argument of the process that TestKill kills.
const writing = "write-for-ever"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == writing {
		for n := 0; ; n++ {
			if err := Write(os.Args[2], 0o600, pattern(n)); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			if n == 0 {
				fmt.Println("begun")
			}
		}
	}
	os.Exit(m.Run())
}

// TestKill kills a process that writes, at any moment, again and again.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for range 20 {
		cmd := exec.Command("/proc/self/exe", writing, path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "begun\n" {
			t.Errorf("%q, %v", line, err)
		}
		<-time.After(time.Duration(rand.IntN(5000)) * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err := whole(read(t, path)); err != nil {
			t.Error(err)
		}
		if got := names(t, dir); len(got) > 2 {
			t.Errorf("there is %q", got)
		}
	}
	if err := Write(path, 0o600, nil); err != nil || len(names(t, dir)) != 1 {
		t.Errorf("%v, there is %q", err, names(t, dir))
	}
}

// BenchmarkWrite is a write of a record's size below TMPDIR: /var/lib is a disk, /run
// is memory.
func BenchmarkWrite(b *testing.B) {
	path := filepath.Join(b.TempDir(), "bench")
	data := bytes.Repeat([]byte("x"), 2000)
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if err := errors.Join(os.WriteFile(path+".new", data, 0o600), os.Rename(path+".new", path)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("durable", func(b *testing.B) {
		for b.Loop() {
			if err := Write(path, 0o600, data); err != nil {
				b.Fatal(err)
			}
		}
	})
}
