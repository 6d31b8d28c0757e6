package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// chassisCount is how many nodes share the zone of part rate.
const chassisCount = 40

// fleet is one zone of many nodes: real databases, a real northd, the real driver and
// compiler, and simulated chassis. Each of them does with a Port_Binding that names it
// what an ovn-controller does: it writes itself and up into it. What an ovn-controller
// needs besides, to compute and install its flows, is in part add, of one real one.
type fleet struct {
	zone   *zone
	driver *ovsdb.Driver
	conns  []*ovsdb.Conn
	sb     *session
	txns   atomic.Int64 // that the driver wrote
	claims chan claim

	mu    sync.Mutex // guards bound
	bound map[string]chan struct{}
}

// claim is a Port_Binding that waits for its chassis.
type claim struct{ uuid, port, chassis string }

func chassisName(i int) string { return fmt.Sprintf("chassis%d", i) }

// timeRate is part rate: pods come one by one, 10 and 100 a second.
func timeRate(ctx context.Context, o options, n *node, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f, err := startFleet(ctx, filepath.Join(n.zone.dir, "fleet"))
	if err != nil {
		return err
	}
	defer f.close()
	began := time.Now()
	if err := f.come(ctx, 0, o.pods, 0); err != nil {
		return fmt.Errorf("the first %d pods: %w", o.pods, err)
	}
	fmt.Fprintf(w, "%d simulated chassis; %d pods there already, which all came at once and were bound in %.1f s\n\n", chassisCount, o.pods, time.Since(began).Seconds())
	fmt.Fprintln(w, "pods a second    pods   p50 ms   p90 ms   p99 ms   NB transactions a pod")
	next := o.pods
	for _, rate := range []int{10, 100} {
		if err := f.zone.nbctl(ctx, "--timeout=120", "--wait=sb", "sync"); err != nil { // northd has nothing left to do
			return err
		}
		count := max(10, int(o.spell.Seconds()*float64(rate)))
		before := f.txns.Load()
		times, err := f.timed(ctx, next, count, rate)
		if err != nil {
			return fmt.Errorf("%d a second: %w", rate, err)
		}
		d := sorted(times)
		fmt.Fprintf(w, "%13d %7d %8s %8s %8s %23.2f\n", rate, count, ms(quantile(d, 50)), ms(quantile(d, 90)), ms(quantile(d, 99)),
			float64(f.txns.Load()-before)/float64(count))
		next += count
	}
	return nil
}

func startFleet(ctx context.Context, dir string) (*fleet, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	z := &zone{dir: dir}
	if err := z.startNorth(ctx); err != nil {
		return nil, err
	}
	f := &fleet{zone: z, claims: make(chan claim, 1<<16), bound: map[string]chan struct{}{}}
	var dbs []ovsdb.Database
	quiet := slog.New(slog.DiscardHandler)
	for db, socket := range map[rows.DB]string{rows.NB: "nb", rows.SB: "sb"} {
		c, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db, Endpoint: z.socket(socket), Zone: "fleet", Lock: true, Logger: quiet})
		if err != nil {
			return nil, err
		}
		f.conns, dbs = append(f.conns, c), append(dbs, c)
	}
	e := engine.New(engine.Config{Kinds: compile.Kinds(), Databases: []rows.DB{rows.NB, rows.SB}})
	f.driver = ovsdb.NewDriver(ovsdb.DriverConfig{Logger: quiet, Observe: func(s ovsdb.StepStats) { f.txns.Add(int64(s.Txns)) }}, e, dbs...)
	go func() { _ = f.driver.Run(ctx) }()
	if err := f.register(ctx, z); err != nil {
		return nil, err
	}
	f.declare()
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return f, f.driver.Wait(wait, "node/"+chassisName(0), ovsdb.Committed)
}

func (f *fleet) close() {
	for _, c := range f.conns {
		c.Close()
	}
}

// register makes the chassis' rows and follows what is to be bound on them.
func (f *fleet) register(ctx context.Context, z *zone) error {
	var err error
	if f.sb, err = dial(ctx, z.socket("sb")); err != nil {
		return err
	}
	for i := range chassisCount {
		name := chassisName(i)
		if err := f.sb.transact(ctx, "OVN_Southbound",
			operation{Op: "insert", Table: "Encap", UUIDName: "encap", Row: columns{"type": "geneve", "ip": chassisAddress(i).String(), "chassis_name": name}},
			operation{Op: "insert", Table: "Chassis", Row: columns{"name": name, "hostname": name, "encaps": named("encap")}}); err != nil {
			return err
		}
	}
	f.sb.follow = f.updated
	go f.bind(ctx)
	_, err = f.sb.call(ctx, "monitor", "OVN_Southbound", nil, columns{"Port_Binding": columns{"columns": []string{"logical_port", "chassis", "requested_chassis", "type"}}})
	return err
}

// updated queues the bindings that name a chassis and have none.
func (f *fleet) updated(params json.RawMessage) {
	var u struct {
		Ports map[string]struct {
			New struct {
				Port      string          `json:"logical_port"`
				Type      string          `json:"type"`
				Chassis   json.RawMessage `json:"chassis"`
				Requested json.RawMessage `json:"requested_chassis"`
			} `json:"new"`
		} `json:"Port_Binding"`
	}
	if json.Unmarshal(params, &[]any{nil, &u}) != nil {
		return
	}
	for uuid, row := range u.Ports {
		var none []any
		var requested [2]string
		if row.New.Type == "" && json.Unmarshal(row.New.Requested, &requested) == nil && requested[0] == "uuid" &&
			json.Unmarshal(row.New.Chassis, &none) == nil && len(none) == 2 && none[0] == "set" {
			f.claims <- claim{uuid, row.New.Port, requested[1]}
		}
	}
}

// bind is all the chassis at work. What waits at one moment is one transaction: in
// a crowd that is kinder to the database than as many chassis would be.
func (f *fleet) bind(ctx context.Context) {
	for {
		var all []claim
		select {
		case <-ctx.Done():
			return
		case c := <-f.claims:
			all = append(all, c)
		}
		for len(f.claims) > 0 && len(all) < 1000 {
			all = append(all, <-f.claims)
		}
		var ops []operation
		for _, c := range all {
			ops = append(ops, operation{Op: "update", Table: "Port_Binding", Where: []any{[]any{"_uuid", "==", []any{"uuid", c.uuid}}},
				Row: columns{"chassis": []any{"uuid", c.chassis}, "up": true}})
		}
		if err := f.sb.transact(ctx, "OVN_Southbound", ops...); err != nil {
			continue // whoever waits for one of these says so
		}
		f.mu.Lock()
		for _, c := range all {
			if done := f.bound[c.port]; done != nil {
				close(done)
				delete(f.bound, c.port)
			}
		}
		f.mu.Unlock()
	}
}

func chassisAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 18, 0, byte(10 + i)}) }

// declare gives the zone's intent: every node is in it, so all are rendered in full.
func (f *fleet) declare() {
	sink := f.driver.Sink()
	sink.Put(&intent.Cluster{
		Zone: "fleet", GlobalZone: true, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")}, MTU: mtu,
		JoinSubnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, TransitNets: []netip.Prefix{netip.MustParsePrefix("100.88.0.0/16")},
		Masquerade: []netip.Prefix{netip.MustParsePrefix("169.254.169.0/29")}, ServiceNets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	for i := range chassisCount {
		ip := chassisAddress(i)
		sink.Put(&intent.Node{
			Name: chassisName(i), Zone: "fleet", ID: i + 2, Subnets: []netip.Prefix{chassisSubnet(i)}, Chassis: chassisName(i), EncapIPs: []netip.Addr{ip},
			Gateway: intent.Gateway{Bridge: gatewayBridge, MAC: rows.MAC(ip), Addresses: []netip.Prefix{netip.PrefixFrom(ip, 16)},
				NextHops: []netip.Addr{netip.MustParseAddr("172.18.255.254")}},
		})
	}
	sink.Synced()
}

// chassisSubnet has room for 4,000 pods: more than a node has, as here are few nodes.
func chassisSubnet(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/16), byte(i % 16 * 16), 0}), 20)
}

// come creates count pods from the first-th on and waits until all are bound.
func (f *fleet) come(ctx context.Context, first, count, rate int) error {
	_, err := f.timed(ctx, first, count, rate)
	return err
}

// timed creates pods at a rate (0: at once) and gives the time of each from its
// creation, with its address, until its chassis has bound its port.
func (f *fleet) timed(ctx context.Context, first, count, rate int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	times, errs := make([]time.Duration, count), make([]error, count)
	var running sync.WaitGroup
	began := time.Now()
	for i := range count {
		if rate > 0 {
			if err := pause(ctx, time.Until(began.Add(time.Duration(i)*time.Second/time.Duration(rate)))); err != nil {
				return nil, err
			}
		}
		p := fleetPod(first + i)
		done := make(chan struct{})
		f.mu.Lock()
		f.bound[p.Namespace+"_"+p.Name] = done
		f.mu.Unlock()
		created := time.Now()
		f.driver.Sink().Put(p)
		running.Go(func() {
			select {
			case <-done:
				times[i] = time.Since(created)
			case <-ctx.Done():
				errs[i] = fmt.Errorf("pod %s is not bound: %w", p.Name, ctx.Err())
			}
		})
	}
	running.Wait()
	return times, errors.Join(errs...)
}

func fleetPod(i int) *intent.Pod {
	subnet := chassisSubnet(i % chassisCount)
	address, _ := rows.Nth(subnet, 3+i/chassisCount)
	gateway, _ := rows.Nth(subnet, 1)
	return &intent.Pod{
		Namespace: "fleet", Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("uid-%d", i), Node: chassisName(i % chassisCount),
		Attachments: []intent.Attachment{{Network: intent.DefaultNetwork, MAC: rows.MAC(address.Addr()),
			Addresses: []netip.Prefix{address}, Gateways: []netip.Addr{gateway.Addr()}}},
	}
}
