package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernel is the network namespace and /proc/sys that Set works on.
type Kernel struct {
	nl     *netlink.Handle
	procfs string // "/proc/sys"

	mu         sync.Mutex // one Set at a time; guards record and advertised
	record     store
	advertised *[]string // devices whose router advertisements were last seen refused; nil: not known
}

// Open returns the kernel of the calling thread's network namespace. stateDir
// keeps what is needed to undo changes after a restart (/var/lib/portolan).
func Open(stateDir string) (*Kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER) // no more: a kernel need not have IPsec
	if err != nil {
		return nil, fmt.Errorf("netlink sockets for routes and connections: %w", err)
	}
	return &Kernel{nl: h, procfs: "/proc/sys", record: store{dir: stateDir}}, nil
}

// Close releases the netlink socket.
func (k *Kernel) Close() { k.nl.Close() }

// pass is one run of Set.
type pass struct {
	*Kernel
	cfg    Config
	links  map[string]netlink.Link // the declared ones that exist
	report Report
}

// Set makes the host be as declared. It does what it can and returns every
// error; what waits for a missing link is no error and is reported.
func (k *Kernel) Set(ctx context.Context, cfg Config) (Report, error) {
	return k.set(ctx, cfg, true)
}

// set leaves nftables, whose check costs a process, to the caller's choice.
func (k *Kernel) set(ctx context.Context, cfg Config, nft bool) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.record.load(); err != nil {
		return Report{}, err
	}
	p := &pass{Kernel: k, cfg: cfg, links: map[string]netlink.Link{}}
	// Sysctls before links: one that comes up open to router advertisements may
	// have believed one when it is closed.
	steps := []func() error{p.giveBackLinks, p.setSysctls, p.setLinks, p.setFeatures}
	if nft {
		// Before the addresses move: what the bridge brings is taken by the kernel
		// wherever the address is, so nothing is lost and nothing answered twice.
		steps = append(steps, func() error { return p.setHidden(ctx) }, func() error { return p.hideAttachments(ctx) })
		k.advertised = nil
	}
	// Addresses before routes: the kernel drops routes with their preferred source.
	steps = append(steps, p.setAddresses, p.setRoutes, p.setRules, func() error { return p.refuseAdvertisements(ctx) })
	var errs []error
	for _, step := range steps {
		errs = append(errs, step())
	}
	errs = append(errs, k.record.save())
	slices.Sort(p.report.Missing)
	return p.report, errors.Join(errs...)
}

// changed counts a write and passes its error on.
func (p *pass) changed(err error, what string, args ...any) error {
	p.report.Changes++
	if err != nil {
		return fmt.Errorf(what+": %w", append(args, err)...)
	}
	return nil
}
