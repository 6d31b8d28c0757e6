package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
)

func TestWatchDir(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		tmp := filepath.Join(dir, name+".tmp")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("1.yaml", cluster+"---\n"+node)
	write("2.yaml", pod)
	sink := newRecordingSink(t)
	w := &WatchDir{Dir: dir, Sink: sink, Problems: sink.problems, Interval: 5 * time.Millisecond}
	running(t, w.Run)
	const all = "Cluster/. Node/node1 Pod/default/web-0"
	sink.wait("the first look", func() bool { return sink.synced[Directory] == 3 && sink.has(all)() })

	file := intent.Key{Kind: "File", Name: "2.yaml"}
	write("2.yaml", "kind: [")
	sink.wait("a Problem of the file", func() bool { return sink.bad[file] != "" && sink.has(all)() })
	write("2.yaml", pod+"---\n"+node)
	key := intent.Key{Kind: intent.KindNode, Name: "node1"}
	sink.wait("a Problem of an object in two files", func() bool {
		return sink.bad[file] == "" && strings.Contains(sink.bad[key], "is in 1.yaml and in 2.yaml")
	})
	write("2.yaml", strings.Replace(pod, "app: web", "app: db", 1))
	pods := intent.Key{Kind: intent.KindPod, Name: "default/web-0"}
	sink.wait("a change", func() bool { return sink.bad[key] == "" && sink.objects[pods].(*intent.Pod).Labels["app"] == "db" })
	if err := os.Remove(filepath.Join(dir, "2.yaml")); err != nil {
		t.Fatal(err)
	}
	sink.wait("a file's objects to go with it", sink.has("Cluster/. Node/node1"))
}

func TestWatchDirNeedsTheDirectory(t *testing.T) {
	w := &WatchDir{Dir: filepath.Join(t.TempDir(), "none"), Sink: newRecordingSink(t)}
	if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "intent directory") {
		t.Errorf("error %v", err)
	}
}
