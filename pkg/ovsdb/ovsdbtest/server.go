package ovsdbtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limit bounds every wait of this package.
const limit = 30 * time.Second

// Server is one ovsdb-server with one database, on a unix socket.
type Server struct {
	Endpoint string // unix:PATH, for clients
	Dir      string // its sockets, database and logs; short, for sun_path's sake
	Schema   string // the schema file it was made from
	t        testing.TB
	args     []string // more for ovsdb-server
	proc     *process
}

// StartServer makes an empty database from a schema file and serves it until
// the test ends; args are more arguments for ovsdb-server.
func StartServer(t testing.TB, schema string, args ...string) *Server {
	t.Helper()
	s := newServer(t, schema)
	s.args = args
	s.create()
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// StartCluster serves one database by n servers in a raft cluster. Their
// endpoints joined by commas are the cluster's.
func StartCluster(t testing.TB, schema, database string, n int) []*Server {
	t.Helper()
	var servers []*Server
	var first string
	for range n {
		s := newServer(t, schema)
		raft := "unix:" + filepath.Join(s.Dir, "raft.sock")
		if first == "" {
			first = raft
			Run(t, "ovsdb-tool", "create-cluster", s.file(), schema, raft)
		} else {
			Run(t, "ovsdb-tool", "join-cluster", s.file(), database, raft, first)
		}
		s.Start()
		t.Cleanup(s.Kill)
		Run(t, "ovsdb-client", "wait", s.Endpoint, database, "connected")
		servers = append(servers, s)
	}
	return servers
}

// ServeFile serves a database file that make has put at a path, until the test ends.
func ServeFile(t testing.TB, make func(path string)) *Server {
	t.Helper()
	s := newServer(t, "")
	make(s.file())
	s.Start()
	t.Cleanup(s.Kill)
	return s
}

// Path is where the server's database file is.
func (s *Server) Path() string { return s.file() }

func newServer(t testing.TB, schema string) *Server {
	t.Helper()
	need(t)
	s := &Server{Dir: shortDir(t), Schema: schema, t: t}
	s.Endpoint = "unix:" + filepath.Join(s.Dir, "db.sock")
	return s
}

// Start serves the database again after Kill, and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	socket := strings.TrimPrefix(s.Endpoint, "unix:")
	args := append([]string{"--remote=punix:" + socket, "--unixctl=" + filepath.Join(s.Dir, "ctl.sock"), "-vconsole:warn", "--no-chdir"}, s.args...)
	s.proc = start(s.t, s.Dir, Command("ovsdb-server", append(args, s.file())...))
	await(s.t, "ovsdb-server to answer", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// Kill ends the server with SIGKILL; the database stays.
func (s *Server) Kill() {
	s.proc.kill()
}

// Wipe replaces the database by an empty one, as a lost disk would.
func (s *Server) Wipe() {
	s.t.Helper()
	s.Kill()
	s.create()
	s.Start()
}

// Save copies the database file, for Restore.
func (s *Server) Save() []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.file())
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// Restore puts an older copy in place of the database, as a restored backup.
func (s *Server) Restore(data []byte) {
	s.t.Helper()
	s.Kill()
	if err := os.WriteFile(s.file(), data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.Start()
}

// Transact runs raw operations by ovsdb-client and returns its reply: args are
// the database's name and the operations as JSON.
func (s *Server) Transact(database string, operations ...string) string {
	s.t.Helper()
	request := fmt.Sprintf("[%q, %s]", database, strings.Join(operations, ", "))
	return Run(s.t, "ovsdb-client", "transact", s.Endpoint, request)
}

// Dump prints the columns of one table by ovsdb-client: a line of CSV a row.
func (s *Server) Dump(database, table string, columns ...string) string {
	s.t.Helper()
	out := Run(s.t, "ovsdb-client", append([]string{"dump", "--format=csv", "--no-headings", s.Endpoint, database, table}, columns...)...)
	_, rows, _ := strings.Cut(out, "\n") // the first line says which table
	return rows
}

func (s *Server) file() string { return filepath.Join(s.Dir, "db") }

func (s *Server) create() {
	s.t.Helper()
	for _, old := range []string{s.file(), filepath.Join(s.Dir, ".db.~lock~")} {
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.t.Fatal(err)
		}
	}
	Run(s.t, "ovsdb-tool", "create", s.file(), s.Schema)
}

// Run runs one of the tree's programs to its end and returns what it prints;
// failing fails the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := Command(name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// need fails the test when there is no tree: a skipped test proves nothing.
func need(t testing.TB) {
	t.Helper()
	if Root() == "/" {
		if _, err := exec.LookPath("ovsdb-server"); err != nil {
			t.Fatalf("no OVN: `make ovn-root` makes a tree with OVN 25.03 and OVS 3.5 in %s; or set %s to a root directory that has them", DefaultRoot, RootEnv)
		}
	}
}

// process is a daemon that a test has started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
}

// start runs a daemon in the foreground, its output in DIR/NAME.log; it dies
// with the test binary, however that ends.
func start(t testing.TB, dir string, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, "daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+dir, "OVN_RUNDIR="+dir, "OVS_LOGDIR="+dir, "OVN_LOGDIR="+dir, "OVS_DBDIR="+dir, "OVN_DBDIR="+dir)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		log.Close()
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer log.Close()
		_ = cmd.Wait() // killed, as a rule
	}()
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// shortDir is a directory whose socket paths fit into sun_path's 108 bytes,
// which those of t.TempDir do not always.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if f, err := os.Open(filepath.Join(dir, "daemon.log")); err == nil {
				tail, _ := io.ReadAll(io.LimitReader(f, 4096))
				f.Close()
				if len(tail) > 0 {
					t.Logf("daemon's log:\n%s", tail)
				}
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// await polls a condition that nothing notifies of.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}
