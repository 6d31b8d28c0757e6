// Package cache keeps what is costly to make (binaries, base systems, images)
// between labs, in directories named by the hash of what they were made from.
// An entry exists whole or not at all: it is made beside its place and renamed,
// so a cache that is empty, or was interrupted half-way, is never wrong.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Key names the content of an entry.
type Key struct {
	Name string // what it is, for people: "kube", "base"
	Hash string // of everything it depends on
}

// KeyOf hashes the parts an entry is made from. Order matters, borders count.
func KeyOf(name string, parts ...string) Key {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return Key{Name: name, Hash: hex.EncodeToString(h.Sum(nil))[:16]}
}

// FileParts gives the content of files as parts for KeyOf. A missing file is an error.
func FileParts(paths ...string) ([]string, error) {
	var out []string
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return nil, fmt.Errorf("cache key: %w", err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cache key: %s: %w", p, err)
		}
		out = append(out, filepath.Base(p)+"="+hex.EncodeToString(h.Sum(nil)))
	}
	return out, nil
}

// Store is a cache directory.
type Store struct{ Dir string }

// Path is where an entry is, made or not.
func (s Store) Path(k Key) string { return filepath.Join(s.Dir, k.Name+"-"+k.Hash) }

// Has says whether an entry is whole.
func (s Store) Has(k Key) bool {
	_, err := os.Stat(s.Path(k))
	return err == nil
}

// Make gives the entry's directory, making it by fill in an empty directory when
// it is not there. One process makes at a time; the others wait and then find it.
// What earlier, interrupted runs left half-made is removed.
func (s Store) Make(ctx context.Context, k Key, fill func(ctx context.Context, dir string) error) (string, error) {
	if s.Has(k) {
		return s.Path(k), nil
	}
	unlock, err := s.Lock(k.Name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if s.Has(k) {
		return s.Path(k), nil
	}
	half := filepath.Join(s.Dir, ".half-"+k.Name)
	if err := os.RemoveAll(half); err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	if err := os.MkdirAll(half, 0o755); err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	if err := fill(ctx, half); err != nil {
		os.RemoveAll(half)
		return "", err
	}
	if err := os.Rename(half, s.Path(k)); err != nil {
		return "", fmt.Errorf("cache: %w", err)
	}
	return s.Path(k), s.dropOld(k)
}

// dropOld removes entries of the same name: they are large and their inputs are gone.
// One generation is kept, for who switches between two branches.
func (s Store) dropOld(k Key) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	var newest os.FileInfo
	var old []string
	for _, e := range entries {
		hash, ok := strings.CutPrefix(e.Name(), k.Name+"-")
		if !ok || hash == k.Hash || strings.Contains(hash, "-") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue
		}
		if newest == nil || info.ModTime().After(newest.ModTime()) {
			newest = info
		}
		old = append(old, e.Name())
	}
	for _, name := range old {
		if newest != nil && name == newest.Name() {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.Dir, name)); err != nil {
			return fmt.Errorf("cache: old entry: %w", err)
		}
	}
	return nil
}

// Lock waits until this process alone changes what the name stands for, and gives
// the function that lets others.
func (s Store) Lock(name string) (func(), error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, ".lock-"+name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("cache: lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}
