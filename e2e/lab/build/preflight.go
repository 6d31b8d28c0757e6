package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// needs maps a program that the lab runs to the Debian package that has it.
// Full paths are files that are not in PATH.
var needs = [][2]string{
	{"containerd", "containerd"}, {"ctr", "containerd"}, {"runc", "runc"}, {"etcd", "etcd-server"},
	{"/usr/lib/cni/loopback", "containernetworking-plugins"},
	{"ip", "iproute2"}, {"ss", "iproute2"}, {"nsenter", "util-linux"}, {"unshare", "util-linux"}, {"ethtool", "ethtool"}, {"nft", "nftables"},
	{"conntrack", "conntrack"}, {"iptables", "iptables"}, {"mount", "mount"}, {"setpriv", "util-linux"}, {"sysctl", "procps"}, {"tcpdump", "tcpdump"}, {"ping", "iputils-ping"}, {"arping", "iputils-arping"},
	{"curl", "curl"}, {"dig", "bind9-dnsutils"}, {"nc.openbsd", "netcat-openbsd"}, {"iperf3", "iperf3"}, {"dash", "dash"},
	{"busybox", "busybox-static"}, {"mmdebstrap", "mmdebstrap"}, {"buildah", "buildah"},
	{"/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"},
}

// Preflight sees that this machine has what a lab needs, and installs the
// packages that are missing.
func (b Builder) Preflight(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the lab makes namespaces and mounts: run it as root (now uid %d)", os.Geteuid())
	}
	if _, err := exec.LookPath("go"); err != nil {
		return fmt.Errorf("the lab builds Kubernetes: Go is not in PATH (%w)", err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/pids"); err != nil {
		return fmt.Errorf("the lab knows cgroup v1 hierarchies only: %w", err)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("the userspace datapath needs TUN: %w", err)
	}
	missing := Missing(func(p string) bool {
		if filepath.IsAbs(p) {
			_, err := os.Stat(p)
			return err == nil
		}
		_, err := exec.LookPath(p)
		return err == nil
	})
	if len(missing) == 0 {
		return nil
	}
	b.say("install %s (apt-get; its output is in %s)", strings.Join(missing, " "), b.logPath("packages"))
	log, err := b.LogFile("packages")
	if err != nil {
		return err
	}
	defer log.Close()
	env := []string{"DEBIAN_FRONTEND=noninteractive"}
	if _, err := (proc.Cmd{Argv: []string{"apt-get", "update"}, Env: env, Log: log}).Output(ctx); err != nil {
		return fmt.Errorf("packages %v are missing: %w", missing, err)
	}
	argv := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)
	if _, err := (proc.Cmd{Argv: argv, Env: env, Log: log}).Output(ctx); err != nil {
		return fmt.Errorf("packages %v are missing: %w", missing, err)
	}
	return nil
}

// Missing lists the packages whose programs has does not find, each once.
func Missing(has func(program string) bool) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range needs {
		if !has(n[0]) && !seen[n[1]] {
			seen[n[1]] = true
			out = append(out, n[1])
		}
	}
	return out
}
