package host

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/safchain/ethtool"
)

// setSysctls writes the declared values, noting the ones before, and gives back
// those of parameters that are not declared any more.
func (p *pass) setSysctls() error {
	var errs []error
	wanted := map[string]bool{}
	for _, s := range p.cfg.Sysctls {
		wanted[s.Path] = true
		have, ok := p.sysctl(s.Path)
		if !ok || have == s.Value {
			continue
		}
		if _, noted := p.record.now.Sysctls[s.Path]; !noted {
			p.record.now.Sysctls[s.Path] = have
			if err := p.record.save(); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, p.writeSysctl(s.Path, s.Value))
	}
	for _, path := range slices.Sorted(maps.Keys(p.record.now.Sysctls)) {
		if wanted[path] {
			continue
		}
		before := p.record.now.Sysctls[path]
		if have, ok := p.sysctl(path); ok && have != before {
			if err := p.writeSysctl(path, before); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		delete(p.record.now.Sysctls, path)
	}
	return errors.Join(errs...)
}

// sysctl reads a parameter; false when the kernel has none of that name (no
// IPv6, or a link that is not there yet).
func (p *pass) sysctl(path string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(p.procfs, path))
	return strings.TrimSpace(string(b)), err == nil
}

func (p *pass) writeSysctl(path, value string) error {
	err := os.WriteFile(filepath.Join(p.procfs, path), []byte(value), 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return p.changed(err, "sysctl %s: set %s", path, value)
}

// txChecksums are the features that stand behind ethtool's "tx off". The kernel
// turns segmentation offload off with them.
var txChecksums = [...]string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"}

// setFeatures turns transmit checksums off where declared, and on again where an
// earlier Set turned them off.
func (p *pass) setFeatures() error {
	if len(p.record.now.Features) == 0 && !slices.ContainsFunc(p.cfg.Links, func(l Link) bool { return l.TxChecksumOff }) {
		return nil
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	var errs []error
	for _, l := range p.cfg.Links {
		if l.TxChecksumOff && p.links[l.Name] != nil {
			errs = append(errs, p.checksumsOff(e, l.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.record.now.Features)) {
		if l, ok := p.cfg.link(name); ok && l.TxChecksumOff {
			continue
		}
		on := map[string]bool{}
		for _, f := range p.record.now.Features[name] {
			on[f] = true
		}
		if _, err := p.nl.LinkByName(name); err == nil {
			if err := p.changed(e.Change(name, on), "link %s: transmit checksums on", name); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		delete(p.record.now.Features, name)
	}
	return errors.Join(errs...)
}

func (p *pass) checksumsOff(e *ethtool.Ethtool, link string) error {
	state, err := e.FeaturesWithState(link)
	if err != nil {
		return err
	}
	off := map[string]bool{}
	for _, f := range txChecksums {
		if s := state[f]; s.Active && s.Available && !s.NeverChanged {
			off[f] = false
		}
	}
	if len(off) == 0 {
		return nil
	}
	if _, noted := p.record.now.Features[link]; !noted {
		p.record.now.Features[link] = slices.Sorted(maps.Keys(off))
		if err := p.record.save(); err != nil {
			return err
		}
	}
	return p.changed(e.Change(link, off), "link %s: transmit checksums off", link)
}
