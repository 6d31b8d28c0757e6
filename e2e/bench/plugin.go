package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// execute runs a plugin as a runtime does: the call in its environment, the
// network's configuration on stdin, the answer on stdout.
func execute(ctx context.Context, plugin, command string, s sandbox, config []byte) error {
	c := exec.CommandContext(ctx, plugin)
	c.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+s.id, "CNI_NETNS="+s.netns, "CNI_IFNAME=eth0",
		"CNI_PATH="+filepath.Dir(plugin)+":"+os.Getenv(envPlugins), fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ptb;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s",
			s.pod, s.id, uidOf(s)))
	c.Stdin = bytes.NewReader(config)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s%s", filepath.Base(plugin), err, out.String(), errs.String())
	}
	if command == wire.Add && !bytes.Contains(out.Bytes(), []byte(`"ips"`)) {
		return fmt.Errorf("%s gave no address: %s", filepath.Base(plugin), out.String())
	}
	return nil
}

func uidOf(s sandbox) string { return "uid-" + s.pod }

// portolan is bin/portolan-cni and what answers it.
type portolan struct {
	node     *node
	shim     string
	prepared bool   // the pod is bound before its ADD, as it is in a cluster
	more     int    // networks beside the default one
	on       string // the annotation that names them; "": the first ones
	device   bool   // the further network's interface is a soft device
}

func (p *portolan) name() string {
	if p.prepared {
		return "portolan"
	}
	return "portolan, unprepared"
}

// label tells the stages of a pod on several networks from others'.
func (p *portolan) label() string {
	if p.more == 0 {
		return ""
	}
	if p.device {
		return "device"
	}
	return fmt.Sprint("+", p.more)
}

func (p *portolan) pod(s sandbox) cni.Pod {
	return cni.Pod{Namespace: "ptb", Name: s.pod, UID: uidOf(s), Selection: cmp.Or(p.on, selection(p.more))}
}

func (p *portolan) config() []byte {
	b, err := json.Marshal(struct {
		CNIVersion   string `json:"cniVersion"`
		Name         string `json:"name"`
		Type         string `json:"type"`
		MultiNetwork string `json:"multiNetwork"`
		Socket       string `json:"socket"`
	}{"1.0.0", "portolan", cni.BinaryName, "native", p.node.socket})
	if err != nil {
		panic(err) // strings only
	}
	return b
}

func (p *portolan) bind(_ context.Context, s sandbox) error {
	if p.prepared {
		p.node.bind(p.pod(s))
	}
	return nil
}

func (p *portolan) add(ctx context.Context, s sandbox) error {
	p.node.stages.follow(p.label())
	if !p.prepared {
		p.node.bind(p.pod(s))
	}
	return execute(ctx, p.shim, wire.Add, s, p.config())
}

func (p *portolan) del(ctx context.Context, s sandbox) error {
	p.node.stages.follow(p.label())
	return execute(ctx, p.shim, wire.Del, s, p.config())
}

func (p *portolan) clear(ctx context.Context, s sandbox) error { return p.node.unbind(ctx, p.pod(s)) }

// ptp is the reference plugin with the least to do: a veth pair and two routes,
// addresses from host-local.
type ptp struct {
	plugin string
	config []byte
}

func newPTP(plugins, dir string) *ptp {
	return &ptp{plugin: filepath.Join(plugins, "ptp"), config: fmt.Appendf(nil,
		`{"cniVersion":"1.0.0","name":"ptb","type":"ptp","mtu":%d,"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.245.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}`,
		mtu, filepath.Join(dir, "host-local"))}
}

func (p *ptp) name() string                         { return "ptp + host-local" }
func (p *ptp) bind(context.Context, sandbox) error  { return nil }
func (p *ptp) clear(context.Context, sandbox) error { return nil }

func (p *ptp) add(ctx context.Context, s sandbox) error {
	return execute(ctx, p.plugin, wire.Add, s, p.config)
}

func (p *ptp) del(ctx context.Context, s sandbox) error {
	return execute(ctx, p.plugin, wire.Del, s, p.config)
}
