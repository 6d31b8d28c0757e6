package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1beta1 "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// The pace. What happens in the kubelet's directory is heard of at once; the rest is
// looked at as often as lookAgain, which also is when a kubelet that has stopped
// listening without a new socket is registered with again.
const (
	lookAgain       = 5 * time.Second
	tryAgain        = 200 * time.Millisecond
	registerTimeout = 10 * time.Second
	withdrawPause   = 5 * time.Second // for the kubelet to hear that a resource is empty
)

// Config is what Plugins need.
type Config struct {
	Dir string // the kubelet's, of device plugins; "": its default
	// Given is called before the kubelet is told what it may give, and may refuse. Nil:
	// nothing is called.
	Given func(resource string, ids []string) error
	Now   func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: slog.Default
}

// Plugins serve the kubelet.
type Plugins struct {
	config Config
	log    *slog.Logger
	bell   chan struct{} // holds a token when something is declared

	mu      sync.Mutex // guards what follows
	wanted  map[string]*server
	leaving map[string]*server // withdrawn, and perhaps not heard of yet
	states  map[string]State
}

// State is how the kubelet stands to one resource.
type State struct {
	Resource   string
	Registered bool  // and it listens
	Err        error // why not; nil when it was not tried yet
}

// New makes Plugins that offer nothing. Run them.
func New(c Config) *Plugins {
	if c.Dir == "" {
		c.Dir = v1beta1.DevicePluginPath
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Plugins{config: c, log: c.Log, bell: make(chan struct{}, 1), wanted: map[string]*server{}, leaving: map[string]*server{}, states: map[string]State{}}
}

// Declare says which resources there are. An error is a mistake of the caller's, and
// changes nothing.
func (p *Plugins) Declare(list []Resource) error {
	for n, r := range list {
		if err := r.check(); err != nil {
			return err
		}
		if slices.ContainsFunc(list[:n], func(o Resource) bool { return o.Name == r.Name }) {
			return fmt.Errorf("resource %s is declared twice", r.Name)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	named := map[string]bool{}
	for _, r := range list {
		named[r.Name] = true
		s := p.wanted[r.Name]
		if s == nil {
			s = newServer(r.Name, p.config)
			p.wanted[r.Name] = s
		}
		s.set(r.Devices)
	}
	for name, s := range p.wanted {
		if !named[name] {
			s.withdraw()
			p.leaving[name] = s
			delete(p.wanted, name)
			delete(p.states, name)
		}
	}
	select {
	case p.bell <- struct{}{}:
	default:
	}
	return nil
}

// Recent reports whether a device was given within a time that has just passed: the
// kubelet may not list it yet.
func (p *Plugins) Recent(id string, within time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	after := p.config.Now().Add(-within)
	for _, s := range p.wanted {
		if s.recent(id, after) {
			return true
		}
	}
	return false
}

// States says how the kubelet stands to each resource, by name.
func (p *Plugins) States() []State {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []State
	for _, name := range slices.Sorted(maps.Keys(p.wanted)) {
		s := p.states[name]
		s.Resource, s.Registered = name, s.Registered && p.wanted[name].heard() > 0
		out = append(out, s)
	}
	return out
}

// Run serves until ctx ends. To the kubelet the devices of a node whose agent is away
// are unwell; containers that have them keep them.
func (p *Plugins) Run(ctx context.Context) {
	look := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	wg.Go(func() { watchDir(ctx, p.config.Dir, look) })
	ends := map[string]*endpoint{}
	defer func() {
		for _, e := range ends {
			e.stop()
		}
	}()
	again := time.NewTimer(lookAgain)
	for {
		pause := lookAgain
		if !p.keep(ctx, ends) {
			pause = tryAgain
		}
		again.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-p.bell:
		case <-look:
		case <-again.C:
		}
	}
}

// keep has each resource served and registered, and reports whether all are.
func (p *Plugins) keep(ctx context.Context, ends map[string]*endpoint) (well bool) {
	p.mu.Lock()
	wanted, leaving := maps.Clone(p.wanted), maps.Clone(p.leaving)
	p.mu.Unlock()
	well = true
	for name, s := range leaving {
		e := ends[name]
		if e != nil && e.server == s {
			if e.leaves(p.config.Now()) {
				well = false
				continue
			}
			e.finish()
			delete(ends, name)
		}
		p.mu.Lock()
		delete(p.leaving, name)
		p.mu.Unlock()
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		e := ends[name]
		if e != nil && e.server != wanted[name] { // it was withdrawn, and is wanted again
			e.stop()
			e = nil
		}
		if e == nil {
			e = &endpoint{dir: p.config.Dir, server: wanted[name]}
			ends[name] = e
		}
		registered, err := e.keep(ctx, p.config.Now())
		if registered && err == nil {
			p.log.Info("resource registered with the kubelet", "resource", name)
		}
		well = well && err == nil
		p.tell(name, err)
	}
	return well
}

// tell notes how the kubelet stands to a resource, and logs what is news.
func (p *Plugins) tell(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.states[name]
	if err != nil && (had.Err == nil || had.Err.Error() != err.Error()) {
		p.log.Warn("resource not registered with the kubelet", "resource", name, "err", err)
	}
	p.states[name] = State{Resource: name, Registered: err == nil, Err: err}
}

// endpoint is a server on its socket.
type endpoint struct {
	dir    string
	server *server

	grpc   *grpc.Server // nil: it does not serve
	done   chan struct{}
	mine   fs.FileInfo // the socket that it serves
	theirs fs.FileInfo // the kubelet's, that it is registered at; nil: at none
	when   time.Time   // it registered
	left   time.Time   // since when it is withdrawn
}

// keep serves where the socket is gone, as the kubelet removes all when it starts, and
// registers where the kubelet is another, or has stopped listening.
func (e *endpoint) keep(ctx context.Context, now time.Time) (registered bool, err error) {
	path := filepath.Join(e.dir, socket(e.server.resource))
	if found, err := os.Lstat(path); err != nil || e.mine == nil || !same(found, e.mine) {
		e.stop()
		if err := e.serve(path); err != nil {
			return false, err
		}
	}
	kubelet := filepath.Join(e.dir, filepath.Base(v1beta1.KubeletSocket))
	found, err := os.Stat(kubelet)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("the kubelet has no socket %s: it does not run, or its directory is another or not mounted here", kubelet)
	case err != nil:
		return false, fmt.Errorf("the kubelet's socket: %w", err)
	}
	if e.theirs != nil && same(found, e.theirs) && (e.server.heard() > 0 || now.Sub(e.when) < lookAgain) {
		return false, nil
	}
	if err := e.register(ctx, kubelet); err != nil {
		e.theirs = nil
		return false, fmt.Errorf("registering at %s: %w", kubelet, err)
	}
	e.theirs, e.when = found, now
	return true, nil
}

// same tells sockets apart also where a file system gives a number again.
func same(a, b fs.FileInfo) bool { return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) }

func (e *endpoint) serve(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("serving resource %s: %w", e.server.resource, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // by then it may be another's
	if e.mine, err = os.Lstat(path); err != nil {
		return errors.Join(err, l.Close())
	}
	e.grpc, e.done, e.theirs = grpc.NewServer(), make(chan struct{}), nil
	v1beta1.RegisterDevicePluginServer(e.grpc, e.server)
	go func(s *grpc.Server, done chan<- struct{}) { // ends with stop
		_ = s.Serve(l)
		close(done)
	}(e.grpc, e.done)
	return nil
}

// finish stops once the kubelet has read what was sent to it: that a resource is empty,
// or its devices would be unwell to it for as long as it runs.
func (e *endpoint) finish() {
	if e.grpc != nil {
		late := time.AfterFunc(withdrawPause, e.grpc.Stop)
		e.grpc.GracefulStop()
		late.Stop()
	}
	e.stop()
}

// stop ends the service, and what of it is in the directory.
func (e *endpoint) stop() {
	if e.grpc == nil {
		return
	}
	e.grpc.Stop()
	<-e.done
	path := filepath.Join(e.dir, socket(e.server.resource))
	if found, err := os.Lstat(path); err == nil && same(found, e.mine) {
		_ = os.Remove(path)
	}
	e.grpc, e.mine, e.theirs = nil, nil, nil
}

// leaves reports whether the kubelet may still have to hear that a resource is empty.
func (e *endpoint) leaves(now time.Time) bool {
	if e.left.IsZero() {
		e.left = now
	}
	return e.grpc != nil && e.server.heard() > 0 && now.Sub(e.left) < withdrawPause
}

func (e *endpoint) register(ctx context.Context, kubelet string) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = v1beta1.NewRegistrationClient(conn).Register(ctx, &v1beta1.RegisterRequest{
		Version: v1beta1.Version, Endpoint: socket(e.server.resource), ResourceName: e.server.resource, Options: options(),
	})
	return err
}
