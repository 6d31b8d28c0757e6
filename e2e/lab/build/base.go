package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/image"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// BaseImage is the name by which deploy/Dockerfile asks for the base system.
const BaseImage = "localhost/portolan-base:trixie"

const baseSuite = "trixie" // OVN 25.03, OVS 3.5; bookworm's OVN 23.03 is not supported

// basePackages is what Portolan's image needs from the distribution.
var basePackages = []string{"openvswitch-switch", "ovn-central", "ovn-host", "ovn-common", "iproute2", "iputils-ping",
	"nftables", "ethtool", "conntrack", "procps", "tcpdump"}

func (b Builder) baseStep() Step {
	return Step{
		Key:  cache.KeyOf("base", append([]string{baseSuite}, basePackages...)...),
		What: "Debian " + baseSuite + " with OVN and OVS", Cost: 2 * time.Minute, Fill: b.fillBase,
	}
}

// OVNRoot makes the base system and gives it a stable name in the cache, for
// tests that run OVN's and OVS's daemons without a cluster.
func (b Builder) OVNRoot(ctx context.Context) (string, error) {
	base := b.baseStep()
	if err := b.Run(ctx, []Step{base}); err != nil {
		return "", err
	}
	link := filepath.Join(b.Cache.Dir, "ovn-root")
	half := link + ".half"
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Symlink(filepath.Join(b.Cache.Path(base.Key), "root"), half); err != nil {
		return "", err
	}
	return link, os.Rename(half, link)
}

func (b Builder) fillBase(ctx context.Context, dir string) error {
	log, err := b.LogFile("base")
	if err != nil {
		return err
	}
	defer log.Close()
	root := filepath.Join(dir, "root")
	argv := []string{"nice", "-n", "5", "mmdebstrap", "--mode=root", "--variant=minbase", "--components=main",
		`--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--include=" + strings.Join(basePackages, ","),
		// No service of a package may start here, and none is wanted in a container.
		`--setup-hook=mkdir -p "$1/usr/sbin"; printf '#!/bin/sh\nexit 101\n' > "$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"`,
		baseSuite, root,
		"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " + Mirror() + " " + baseSuite + " main"}
	if _, err := (proc.Cmd{Argv: argv, Log: log}).Output(ctx); err != nil {
		return err
	}
	return image.WriteArchive(root, filepath.Join(dir, "base.tar"), image.Config{Tags: []string{BaseImage}, Cmd: []string{"/bin/bash"}})
}

var uri = regexp.MustCompile(`(?m)^(?:URIs: *|deb (?:\[[^]]*\] )?)(\S*/debian/?)(?:\s|$)`)

// Mirror is the Debian mirror this machine uses already.
func Mirror() string {
	for _, f := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if text, err := os.ReadFile(f); err == nil {
			if m := uri.FindSubmatch(text); m != nil {
				return string(m[1])
			}
		}
	}
	return "http://deb.debian.org/debian"
}
