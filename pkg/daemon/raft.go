package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"
)

// askAgain is how often the server that founds a cluster looks for the others.
const askAgain = time.Second

// Member is a server's file of a database that several servers keep alike by raft.
//
// There is no state but the servers' files. A server that has one goes on with
// it. One that has none joins, and waits in joining for those that are members;
// only the first of the list may found a cluster, and only when it has heard from
// a majority, itself included, that none of them has one: so a founder that has lost
// its disk does not found a second cluster beside the first.
type Member struct {
	File
	Database string                    // its OVSDB name
	Self     netip.Addr                // this server
	Servers  []netip.Addr              // all of them, the founder first
	Raft     func(a netip.Addr) string // at which address the others know a server
	// Cluster asks a server for the cluster it is in; "" if it is in none yet.
	Cluster func(ctx context.Context, server netip.Addr) (string, error)
	Logger  *slog.Logger // nil: slog.Default()
}

// Prepare is a Daemon's.
func (m Member) Prepare(ctx context.Context) error { return m.Make(ctx, OVSDBTool) }

// Make sees to it that there is a file to serve.
func (m Member) Make(ctx context.Context, run Run) error {
	log := m.Logger
	if log == nil {
		log = slog.Default()
	}
	kept, err := m.kept(run)
	if err != nil || kept {
		return err
	}
	found := m.Self == m.Servers[0]
	if found {
		if found, err = m.none(ctx, log); err != nil {
			return err
		}
	}
	log.Info("no database yet", "database", m.Database, "server", m.Raft(m.Self), "founds", found)
	return halfway(m.Path, func(half string) error {
		if found {
			_, err := run("create-cluster", half, m.Schema, m.Raft(m.Self))
			return err
		}
		args := []string{"join-cluster", half, m.Database, m.Raft(m.Self)}
		for _, s := range m.Servers {
			if s != m.Self {
				args = append(args, m.Raft(s))
			}
		}
		_, err := run(args...)
		return err
	})
}

// kept reports whether the file is this server's of a cluster. Another, such as one
// of a zone that had one server, is put aside: all that it holds is compiled anew.
func (m Member) kept(run Run) (bool, error) {
	f, err := os.Open(m.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(clusteredMagic))
	if _, err := f.Read(head); err != nil {
		return false, fmt.Errorf("%s: %w", m.Path, err)
	}
	if string(head) == clusteredMagic {
		local, err := run("db-local-address", m.Path)
		if err != nil {
			return false, err
		}
		if strings.TrimSpace(local) == m.Raft(m.Self) {
			return true, nil
		}
	}
	return false, os.Rename(m.Path, m.Path+".aside")
}

// clusteredMagic begins the file of a server of a cluster (ovsdb(5)).
const clusteredMagic = "OVSDB CLUSTER"

// none asks the other servers until one of them is in a cluster, or a majority is
// known to be in none.
func (m Member) none(ctx context.Context, log *slog.Logger) (bool, error) {
	said := ""
	for {
		without := 1 // this one
		var silent []string
		for _, s := range m.Servers[1:] {
			id, err := m.Cluster(ctx, s)
			switch {
			case err != nil:
				silent = append(silent, err.Error())
			case id != "":
				return false, nil
			default:
				without++
			}
		}
		if without > len(m.Servers)/2 {
			return true, nil
		}
		if now := strings.Join(silent, "; "); now != said {
			said = now
			log.Info("waiting for the other servers, to know whether there is a cluster", "database", m.Database, "err", said)
		}
		t := time.NewTimer(askAgain)
		select {
		case <-ctx.Done():
			t.Stop()
			return false, ctx.Err()
		case <-t.C:
		}
	}
}
