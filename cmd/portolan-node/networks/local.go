package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// Sink learns of blocks.
type Sink interface {
	Put(intent.Object)
	Delete(intent.Key)
}

// LocalBlocks are Blocks of a node without an API server: in a file of its own, for
// nobody else gives addresses of its networks. What another node has of them, the
// directory of intent says by AddressBlocks.
type LocalBlocks struct {
	path string

	mu     sync.Mutex // guards what follows; held while the file is written
	blocks map[intent.Key]*intent.Block
	sink   Sink
}

// OpenLocalBlocks reads the file, or begins one.
func OpenLocalBlocks(path string) (*LocalBlocks, error) {
	l := &LocalBlocks{path: path, blocks: map[intent.Key]*intent.Block{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("blocks of networks: %w", err)
	}
	var list []v1alpha1.AddressBlockSpec
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("blocks of networks in %s: %w; remove the file if no pod of this node is on a network beside the default one", path, err)
	}
	for _, spec := range list {
		b, problems := kube.ParseBlock(&v1alpha1.AddressBlock{Spec: spec})
		if len(problems) > 0 {
			return nil, fmt.Errorf("blocks of networks in %s: network %s, slot %d: %s: %s", path, spec.Network, spec.Slot, problems[0].Field, problems[0].Message)
		}
		l.blocks[b.Key()] = b
	}
	return l, nil
}

// Follow tells a sink of every block that there is, and of changes from now on.
func (l *LocalBlocks) Follow(s Sink) {
	l.mu.Lock()
	l.sink = s
	list := make([]*intent.Block, 0, len(l.blocks))
	for _, b := range l.blocks {
		list = append(list, b)
	}
	l.mu.Unlock()
	for _, b := range list {
		s.Put(b)
	}
}

// Make implements Blocks.
func (l *LocalBlocks) Make(_ context.Context, b *intent.Block) error {
	if have := l.get(b.Key()); have != nil && (have.Node != b.Node || len(have.Entries) > 0) {
		return kube.ErrBlockTaken
	}
	made := *b
	return l.set(b.Key(), &made)
}

// Change implements Blocks. Its callers take turns, a network at a time.
func (l *LocalBlocks) Change(_ context.Context, network string, slot int, change func(*intent.Block) error) error {
	have := l.get((&intent.Block{Network: network, Slot: slot}).Key())
	if have == nil {
		return kube.ErrBlockGone
	}
	b := *have
	b.Entries = slices.Clone(have.Entries)
	if err := change(&b); err != nil {
		return err
	}
	return l.set(b.Key(), &b)
}

// Remove implements Blocks.
func (l *LocalBlocks) Remove(_ context.Context, network string, slot int, gone func(*intent.Block) bool) error {
	key := (&intent.Block{Network: network, Slot: slot}).Key()
	if b := l.get(key); b == nil || !gone(b) {
		return nil
	}
	return l.set(key, nil)
}

func (l *LocalBlocks) get(k intent.Key) *intent.Block {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocks[k]
}

// set writes the file, and then tells.
func (l *LocalBlocks) set(k intent.Key, b *intent.Block) error {
	l.mu.Lock()
	old := l.blocks[k]
	l.keep(k, b)
	err := l.write()
	if err != nil {
		l.keep(k, old)
	}
	sink := l.sink
	l.mu.Unlock()
	switch {
	case err != nil || sink == nil:
	case b == nil:
		sink.Delete(k)
	default:
		sink.Put(b)
	}
	return err
}

func (l *LocalBlocks) keep(k intent.Key, b *intent.Block) {
	if b == nil {
		delete(l.blocks, k)
		return
	}
	l.blocks[k] = b
}

// write replaces the file as a whole; l.mu is held.
func (l *LocalBlocks) write() error {
	list := make([]v1alpha1.AddressBlockSpec, 0, len(l.blocks))
	for _, k := range slices.SortedFunc(maps.Keys(l.blocks), intent.Key.Compare) {
		list = append(list, kube.FormatBlock(l.blocks[k]))
	}
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("blocks of networks: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o755); err != nil {
		return fmt.Errorf("blocks of networks: %w", err)
	}
	if err := durable.Write(l.path, 0o600, data); err != nil {
		return fmt.Errorf("blocks of networks: %w", err)
	}
	return nil
}
