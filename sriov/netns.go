package sriov

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is an open one with sockets into it.
type namespace struct {
	file *os.File
	id   string
	home bool // the node's, which stays open

	mu    sync.Mutex // guards what follows
	route *netlink.Handle
	rdma  *netlink.Handle
	bare  *nl.SocketHandle // for messages that netlink.Handle has not
}

func newNamespace(f *os.File) (*namespace, error) {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return nil, err
	}
	return &namespace{file: f, id: fmt.Sprintf("%d:%d", s.Dev, s.Ino)}, nil
}

// ID implements Namespace.
func (n *namespace) ID() string { return n.id }

// Close implements Namespace.
func (n *namespace) Close() error {
	if n.home {
		return nil
	}
	return n.close()
}

func (n *namespace) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range []*netlink.Handle{n.route, n.rdma} {
		if h != nil {
			h.Close()
		}
	}
	if n.bare != nil {
		n.bare.Close()
	}
	n.route, n.rdma, n.bare = nil, nil, nil
	return n.file.Close()
}

// handle is a socket of a family in the namespace, opened when it is first needed.
func (n *namespace) handle(family int) (*netlink.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	which := &n.route
	if family == unix.NETLINK_RDMA {
		which = &n.rdma
	}
	if *which == nil {
		h, err := netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), family)
		if err != nil {
			return nil, err
		}
		*which = h
	}
	return *which, nil
}

// set sends one message that changes a device of the namespace.
func (n *namespace) set(index int, attributes ...*nl.RtAttr) error {
	socket, err := n.socket()
	if err != nil {
		return err
	}
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: socket}
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	request.AddData(head)
	for _, a := range attributes {
		request.AddData(a)
	}
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func (n *namespace) socket() (*nl.SocketHandle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.bare == nil {
		s, err := nl.GetNetlinkSocketAt(netns.NsHandle(n.file.Fd()), netns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return nil, err
		}
		n.bare = &nl.SocketHandle{Socket: s}
	}
	return n.bare, nil
}

// Open implements Kernel. A runtime may name a namespace under /var/run, which in a
// container need not be /run. One that is gone may leave its mount point, an empty file.
func (k *NetlinkKernel) Open(path string) (Namespace, error) {
	f, err := os.Open(path)
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok && err != nil {
		f, err = os.Open("/run/" + rest)
	}
	if err != nil {
		return nil, err
	}
	var kind unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &kind); err != nil || kind.Type != unix.NSFS_MAGIC {
		return nil, errors.Join(fmt.Errorf("%s is no namespace: %w", path, fs.ErrNotExist), err, f.Close())
	}
	n, err := newNamespace(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return n, nil
}

// Temporary implements Kernel.
func (k *NetlinkKernel) Temporary() (Namespace, error) {
	type made struct {
		file *os.File
		err  error
	}
	done := make(chan made, 1)
	// It ends with the namespace made. A thread that cannot go back to the node's namespace
	// stays locked, and ends with the goroutine.
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- made{err: err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if unix.Setns(int(k.host.file.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- made{f, err}
	}()
	m := <-done
	if m.err != nil {
		return nil, m.err
	}
	n, err := newNamespace(m.file)
	if err != nil {
		return nil, errors.Join(err, m.file.Close())
	}
	return n, nil
}
