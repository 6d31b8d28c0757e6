package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/sriov"
)

// functions that the run needs: one for each pod.
const functions = 2

// session is a run between the NIC as it was and the NIC as it was.
type session struct {
	*machine
	c  config
	n  *node
	pf sriov.PF
	t  *table
}

// measure does everything in between. Its error is of what has kept the table from
// being complete.
func (m *machine) measure(ctx context.Context, c config, pf sriov.PF, t *table) (err error) {
	n, err := newNode(c)
	if n != nil {
		defer func() {
			if e := n.end(); e != nil {
				t.add(false, "everything ended", "%v", e)
			}
		}()
	}
	if err != nil {
		return err
	}
	if err := n.serve(ctx); err != nil {
		return err
	}
	pods := []pod{{name: "east"}, {name: "west"}}
	declare := func(pool string) error {
		return n.write("intent/all.yaml", intentFile+podFile(pods[0].name)+podFile(pods[1].name)+pool)
	}
	if err := declare(poolFile(pf, functions, sriov.Switchdev)); err != nil {
		return err
	}
	s := &session{m, c, n, pf, t}
	if err := s.configured(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.detach(pods)) }()
	for i := range pods {
		if err := s.attach(ctx, i, &pods[i]); err != nil {
			return err
		}
	}
	return s.traffic(ctx, pods)
}

// configured waits until the pool has made the NIC what it asks for.
func (s *session) configured(ctx context.Context) error {
	begun := time.Now()
	err := s.n.wait(ctx, "the DevicePool to make the NIC switchdev with functions", func() error {
		now, err := s.inventory.PF(s.pf.Bus, s.pf.ID)
		if err != nil {
			return err
		}
		if now.Mode != sriov.Switchdev || now.VFs != functions {
			return fmt.Errorf("mode %s, %d VFs", now.Mode, now.VFs)
		}
		ids, err := s.inventory.VFs(now)
		if err != nil {
			return err
		}
		for _, id := range ids {
			d, err := s.inventory.Resolve(id)
			if err := errors.Join(err, d.Fault()); err != nil {
				return err
			}
			if d.Netdev == "" {
				return fmt.Errorf("%s has no network device yet", id)
			}
		}
		return nil
	})
	if err != nil {
		s.t.add(false, "DevicePool: switchdev, functions", "%v", err)
		return err
	}
	s.t.add(true, "DevicePool: switchdev, functions", "%d VFs after %s", functions, short(time.Since(begun)))
	return nil
}

// attach gives a pod a function.
func (s *session) attach(ctx context.Context, i int, p *pod) error {
	now, err := s.inventory.PF(s.pf.Bus, s.pf.ID)
	if err != nil {
		return err
	}
	ids, err := s.inventory.VFs(now)
	if err != nil {
		return err
	}
	begun := time.Now()
	d, err := s.inventory.Resolve(ids[i])
	if err != nil {
		return err
	}
	s.t.add(true, "resolve "+ids[i], "representor %s in %s", d.Representor, short(time.Since(begun)))
	p.device, p.representor, p.netns = d.ID, d.Representor, s.n.path("run/netns/"+p.name)
	if _, err := s.n.run(ctx, "ip", "netns", "add", p.name); err != nil {
		return err
	}
	begun = time.Now()
	said, err := s.n.cni(ctx, "ADD", p.name, p.device)
	if err != nil {
		err = fmt.Errorf("%w%s", err, s.n.tail("run/agent.log"))
		s.t.add(false, "attach "+p.name, "%v", err)
		return err
	}
	var result struct {
		IPs []struct{ Address string } `json:"ips"`
	}
	if err := json.Unmarshal([]byte(said), &result); err != nil || len(result.IPs) == 0 {
		return fmt.Errorf("ADD of %s: %w: %s", p.name, err, said)
	}
	prefix, err := netip.ParsePrefix(result.IPs[0].Address)
	if err != nil {
		return err
	}
	p.addr = prefix.Addr()
	s.t.add(true, "attach "+p.name, "%s is %s in %s", p.device, p.addr, short(time.Since(begun)))
	return nil
}

// traffic sends between the pods, and looks where the packets are moved.
func (s *session) traffic(ctx context.Context, pods []pod) error {
	stream, err := dialTCP(pods[0], pods[1])
	if err != nil {
		s.t.add(false, "first packet", "%v", err)
		return err
	}
	defer stream.close()
	s.t.add(true, "first packet", "a TCP connection in %s", short(stream.first))
	// The first packets make the flows: what counts begins when they are there.
	if _, err := stream.send(s.c.seconds); err != nil {
		return err
	}
	var watched []*golden
	for _, p := range pods {
		g, err := watch(p.representor, pods[0].addr, pods[1].addr)
		if err != nil {
			return err
		}
		watched = append(watched, g)
	}
	begun := time.Now()
	told := make(chan error, 1)
	var reports []offload.InterfaceReport
	go func() { // ends within the time of the question
		var err error
		reports, err = s.n.told(ctx, s.c.seconds)
		told <- err
	}()
	bytes, err := stream.send(s.c.seconds + 2*time.Second)
	if err := errors.Join(err, <-told); err != nil {
		return err
	}
	took := time.Since(begun)
	s.t.add(bytes > 0, "TCP", "%.1f Mbit/s", float64(bytes)*8/1e6/took.Seconds())
	for i, p := range pods {
		seen := watched[i].stop()
		// A segment is 64 kB at most: fewer packets than this cannot have been moved.
		s.t.add(seen == 0, "golden test of "+p.name, "%d packets of the flow seen at %s, of at least %d", seen, p.representor, bytes/65536)
	}
	s.t.flows(reports)
	sent, back, err := udp(pods[0], pods[1], s.c.seconds)
	if err != nil {
		return err
	}
	s.t.add(back*100 >= sent*99, "UDP", "%d of %d datagrams came back", back, sent)
	return nil
}

// told is what portolan offload says of all interfaces.
func (n *node) told(ctx context.Context, d time.Duration) ([]offload.InterfaceReport, error) {
	text, err := n.run(ctx, n.bin+"/portolan", "offload", "--for", d.String(), "--detail", "-o", "json")
	if err != nil {
		return nil, err
	}
	var list []struct{ offload.Report }
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		return nil, fmt.Errorf("portolan offload: %w: %s", err, text)
	}
	return list[0].Interfaces, nil
}

// flows notes where flows and packets are, by ovs-vswitchd's word and by TC's counters.
func (t *table) flows(reports []offload.InterfaceReport) {
	for _, r := range reports {
		sum := r.From.Sum()
		why := ""
		for _, reason := range r.Reasons {
			why += " " + string(reason.Code)
		}
		if why != "" {
			why = ", why not:" + why
		}
		t.add(r.Verdict == offload.InHardware, "offloaded:yes of "+r.Pod, "%d of %d flows, %d of %d packets%s", r.From.Hardware.Flows, sum.Flows, r.From.Hardware.Packets, sum.Packets, why)
		if r.TC == nil {
			t.add(false, "TC's counters of "+r.Pod, "no filter at %s", r.Port)
			continue
		}
		t.add(r.TC.HardwarePackets > 0, "TC's counters of "+r.Pod, "%d of %d filters in hardware, %d packets by hardware, %d by software", r.TC.InHardware, r.TC.Filters, r.TC.HardwarePackets, r.TC.SoftwarePackets)
	}
	if len(reports) < functions {
		t.add(false, "portolan offload", "it has %d interfaces", len(reports))
	}
}

// detach takes the functions back.
func (s *session) detach(pods []pod) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var errs []error
	for _, p := range pods {
		if p.device == "" {
			continue
		}
		begun := time.Now()
		if _, err := s.n.cni(ctx, "DEL", p.name, p.device); err != nil {
			s.t.add(false, "detach "+p.name, "%v", err)
			errs = append(errs, err)
			continue
		}
		took := time.Since(begun)
		d, err := s.inventory.Resolve(p.device)
		switch {
		case err != nil:
			s.t.add(false, "detach "+p.name, "%v", err)
		case d.Netdev == "":
			s.t.add(false, "detach "+p.name, "its network device is not back after %s", short(took))
		default:
			s.t.add(true, "detach "+p.name, "%s is back after %s", d.Netdev, short(took))
		}
	}
	return errors.Join(errs...)
}

// short is a time for people.
func short(d time.Duration) string {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}
