package delegate

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/durable"
)

// Config says where plugins are and what is kept where.
type Config struct {
	Root   string // of the file system that plugins see; "": this process's
	BinDir string // the plugin directory, below Root
	State  string // directory of the records, as this process sees it
}

// Plugins implements cni.Plugins. It is safe for concurrent use; calls for one sandbox
// are its caller's to order.
type Plugins struct {
	cfg  Config
	exec *executor

	mu      sync.Mutex // guards records
	records map[string]cni.Delegation
}

// Open reads the records, and returns once no plugin runs that an earlier process has
// started.
func Open(ctx context.Context, c Config) (*Plugins, error) {
	p := &Plugins{cfg: c, records: map[string]cni.Delegation{}}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return nil, fmt.Errorf("records of plugins: %w", err)
	}
	var err error
	if p.exec, err = newExecutor(ctx, c); err != nil {
		return nil, err
	}
	if err := durable.Sweep(c.State); err != nil {
		return nil, fmt.Errorf("records of plugins: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(c.State, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("records of plugins: %w", err)
		}
		var d cni.Delegation
		if err := json.Unmarshal(text, &d); err != nil || p.file(d) != f {
			return nil, fmt.Errorf("records of plugins: %s is no record (%w): remove it, and undo by hand what its plugin made", f, err)
		}
		p.records[f] = d
	}
	return p, nil
}

// Close lets another process open the records.
func (p *Plugins) Close() error { return p.exec.lock.Close() }

// file of a delegation's record.
func (p *Plugins) file(d cni.Delegation) string {
	sum := sha256.Sum256([]byte(d.For + "\x00" + d.Sandbox + "\x00" + d.Key))
	return filepath.Join(p.cfg.State, fmt.Sprintf("%x.json", sum[:16]))
}

// record writes what is known of a delegation, whole or not at all.
func (p *Plugins) record(d cni.Delegation) error {
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f := p.file(d)
	if err := durable.Write(f, 0o600, text); err != nil {
		return fmt.Errorf("record of plugins: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records[f] = d
	return nil
}

// List implements cni.Plugins.
func (p *Plugins) List() ([]cni.Delegation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]cni.Delegation, 0, len(p.records))
	for _, d := range p.records {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b cni.Delegation) int {
		return strings.Compare(a.Sandbox+" "+a.Key+" "+a.For, b.Sandbox+" "+b.Key+" "+b.For)
	})
	return out, nil
}

// call is one delegation in libcni's terms. Each purpose has results of its own: libcni
// files them by network, sandbox and interface.
func (p *Plugins) call(d cni.Delegation) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	list, err := libcni.ConfListFromBytes(d.List)
	if err != nil {
		return nil, nil, nil, err
	}
	if list.CNIVersion == "" {
		list.CNIVersion = cni.DefaultVersion
	}
	values := make(map[string]any, len(d.Values))
	for k, v := range d.Values {
		values[k] = v
	}
	rt := &libcni.RuntimeConf{
		ContainerID: d.Sandbox, NetNS: d.Netns, IfName: d.IfName, CapabilityArgs: values,
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", d.Pod.Namespace}, {"K8S_POD_NAME", d.Pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", d.InfraID}, {"K8S_POD_UID", d.Pod.UID}},
	}
	if d.InfraID == "" {
		rt.Args[3][1] = d.Sandbox
	}
	return libcni.NewCNIConfigWithCacheDir([]string{p.cfg.BinDir}, filepath.Join(p.cfg.State, "results", d.For), p.exec), list, rt, nil
}

// Add implements cni.Plugins.
func (p *Plugins) Add(ctx context.Context, d cni.Delegation) (*types100.Result, error) {
	config, list, rt, err := p.call(d)
	if err != nil {
		return nil, err
	}
	for _, plugin := range list.Plugins {
		if _, err := p.exec.FindInPath(plugin.Network.Type, config.Path); err != nil {
			return nil, err
		}
	}
	d.Result = nil
	if err := p.record(d); err != nil {
		return nil, err
	}
	said, err := config.AddNetworkList(ctx, list, rt)
	if err != nil {
		return nil, err
	}
	result, err := types100.NewResultFromResult(said)
	if err != nil {
		return nil, fmt.Errorf("result of network %s: %w", list.Name, err)
	}
	d.Result = result
	return result, p.record(d)
}

// Check implements cni.Plugins.
func (p *Plugins) Check(ctx context.Context, d cni.Delegation) error {
	config, list, rt, err := p.call(d)
	if err != nil {
		return err
	}
	if strings.HasPrefix(list.CNIVersion, "0.") && list.CNIVersion < "0.4.0" {
		return nil // there was no CHECK
	}
	return config.CheckNetworkList(ctx, list, rt)
}

// Del implements cni.Plugins.
func (p *Plugins) Del(ctx context.Context, d cni.Delegation) error {
	config, list, rt, err := p.call(d)
	if err != nil {
		return err
	}
	if !p.exec.exists(rt.NetNS) {
		rt.NetNS = "" // as the specification says it to plugins; some fail over a path that is not there
	}
	if err := config.DelNetworkList(ctx, list, rt); err != nil {
		return err
	}
	f := p.file(d)
	if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record of plugins: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.records, f)
	return nil
}
