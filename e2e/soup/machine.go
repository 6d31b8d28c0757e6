package soup

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// database is a place for a simulated database, which may be taken away and
// replaced under its user.
type database struct {
	*enginetest.DB
	saved *enginetest.DB
}

// Snapshot implements script.Database.
func (d *database) Snapshot() (engine.Snapshot, error) { return d.DB.Snapshot(), nil }

// zoneDBs are a zone's databases.
type zoneDBs map[rows.DB]*database

func newZoneDBs(names ...rows.DB) zoneDBs {
	z := zoneDBs{}
	for _, n := range names {
		z[n] = &database{DB: enginetest.New(n)}
	}
	return z
}

func (z zoneDBs) list() []script.Database {
	var out []script.Database
	for _, n := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		if z[n] != nil {
			out = append(out, z[n])
		}
	}
	return out
}

// machine is a computer: what outlives its agent.
type machine struct {
	world    *world
	name     string // of the machine, and of its chassis
	node     string // the name it registers under
	addr     netip.Addr
	dbs      zoneDBs
	down     map[rows.DB]bool
	ports    *cnitest.Ports
	links    *cnitest.Links
	journal  *cnitest.Journal
	agent    *agent // nil while it is dead
	sandbox  map[string]sandbox
	starts   int
	uptodate time.Time // when its zone last had all that the API server had
}

// sandbox is a pod's, as the runtime sees it.
type sandbox struct {
	id     string
	pod    string
	uid    string
	ending bool // a DEL has begun: it is called until it succeeds
}

func newMachine(w *world, name string, number int) *machine {
	m := &machine{
		world: w, name: name, node: name, addr: machineAddr(number), down: map[rows.DB]bool{},
		ports: &cnitest.Ports{}, links: &cnitest.Links{}, journal: &cnitest.Journal{}, sandbox: map[string]sandbox{},
	}
	if w.opts.global {
		m.dbs = newZoneDBs(rows.OVS)
	} else {
		m.dbs = newZoneDBs(rows.OVS, rows.NB, rows.SB)
	}
	return m
}

func machineAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{172, 18, 0, byte(10 + n)}) }

// start begins the agent's process: it knows nothing yet.
func (m *machine) start() {
	if m.agent == nil {
		m.starts++
		m.agent = newAgent(m)
	}
}

// kill ends the process between two steps. What it had not written is lost.
func (m *machine) kill() { m.agent = nil }

// reboot ends everything that lives in memory: the process, sandboxes, links, and
// the ports of devices that are gone.
func (m *machine) reboot() {
	m.kill()
	m.ports, m.links, m.sandbox = &cnitest.Ports{}, &cnitest.Links{}, map[string]sandbox{}
}

// add is the runtime's ADD for a pod; it makes a new sandbox.
func (m *machine) add(pod string) error {
	p := m.world.api.pods[pod]
	if m.agent == nil || !m.agent.serving || p == nil || p.Spec.NodeName != m.node || !m.agent.knows(pod, string(p.UID)) {
		return nil
	}
	if _, has := m.sandbox[string(p.UID)]; has {
		return nil
	}
	m.world.sandboxes++
	s := sandbox{id: fmt.Sprintf("sb%d", m.world.sandboxes), pod: pod, uid: string(p.UID)}
	reply := m.call(wire.Add, s)
	s.ending = reply.Error != nil // a failed ADD is followed by DELs until one succeeds
	m.sandbox[s.uid] = s
	if s.ending {
		return m.tolerate(reply.Error)
	}
	return nil
}

// del is the runtime's DEL of a sandbox.
func (m *machine) del(uid string) error {
	s, ok := m.sandbox[uid]
	if !ok || m.agent == nil || !m.agent.serving {
		return nil
	}
	s.ending = true
	m.sandbox[uid] = s
	if reply := m.call(wire.Del, s); reply.Error != nil {
		return m.tolerate(reply.Error)
	}
	delete(m.sandbox, uid)
	return nil
}

// tolerate is the runtime's patience: it calls again later.
func (m *machine) tolerate(err *wire.Error) error {
	if m.down[rows.OVS] || err.Code == wire.CodeTryAgain || err.Code == wire.CodeNoAddressLeft {
		return nil
	}
	return fmt.Errorf("%s: a CNI call fails: %w", m.name, err)
}

func (m *machine) call(command string, s sandbox) *wire.Reply {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return m.agent.server.Handle(ctx, &wire.Call{
		Command: command, ContainerID: s.id, Netns: "/run/netns/" + s.id, IfName: "eth0",
		Args:   fmt.Sprintf("K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", namespace, s.pod, s.uid),
		Config: []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`),
	})
}

// kubelet ends the sandboxes of pods that are not this node's any more, goes on with
// those that are ending, and makes those of pods that have none.
func (m *machine) kubelet() error {
	for _, uid := range slices.Sorted(maps.Keys(m.sandbox)) {
		p := m.world.api.pods[m.sandbox[uid].pod]
		if p == nil || string(p.UID) != uid || p.Spec.NodeName != m.node || completed(p) || m.sandbox[uid].ending {
			if err := m.del(uid); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.world.api.pods)) {
		if p := m.world.api.pods[name]; !completed(p) {
			if err := m.add(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// setDown loses the connection to a database, or has it back.
func (m *machine) setDown(db rows.DB, down bool) error {
	if m.dbs[db] == nil || m.down[db] == down {
		return nil
	}
	m.down[db] = down
	if db == rows.OVS {
		var err error
		if down {
			err = fmt.Errorf("connection refused")
		}
		m.ports.Fail(err)
	}
	switch {
	case m.agent == nil:
		return nil
	case down:
		m.agent.shell.Down(db)
		return nil
	}
	return m.agent.shell.Up(db)
}

func (m *machine) anyDown() bool {
	for _, down := range m.down {
		if down {
			return true
		}
	}
	return false
}

// replace puts another content in place of a database, as a lost disk or a
// restored backup does. The connection breaks with it.
func (m *machine) replace(db rows.DB, with *enginetest.DB) error {
	if m.dbs[db] == nil || db == rows.OVS || with == nil {
		return nil
	}
	if err := m.setDown(db, true); err != nil {
		return err
	}
	m.dbs[db].DB = with
	return m.setDown(db, false)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
