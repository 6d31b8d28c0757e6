package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// withMultus is Multus, as a plugin by itself, that attaches a pod to a bridge by the
// reference plugins, and to as many more as the pod names. Each bridge has its own
// addresses, of host-local.
type withMultus struct {
	plugin string
	config []byte
	api    *apiServer
	more   int
}

func newMultus(dir, plugins string, z *zone, api *apiServer, more int) *withMultus {
	for i := range more {
		api.putDefinition(definitionName(i), bridgeConfig(z, i+1))
	}
	return &withMultus{plugin: filepath.Join(dir, "multus"), api: api, more: more, config: fmt.Appendf(nil,
		`{"cniVersion":"1.0.0","name":"multus","type":"multus","kubeconfig":%q,"cniDir":%q,"binDir":%q,"logLevel":"error","logToStderr":true,"delegates":[%s]}`,
		api.kubeconfig, filepath.Join(z.dir, "multus"), plugins, bridgeConfig(z, 0))}
}

// bridgeConfig is network n: the default one is 0, and has the default route.
func bridgeConfig(z *zone, n int) string {
	extra := ""
	if n == 0 {
		extra = `"isDefaultGateway":true,`
	}
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"ptb%d","type":"bridge","bridge":"ptbr%d","mtu":%d,%s"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/16"}}`,
		n, n, mtu, extra, filepath.Join(z.dir, "host-local"), 230+n)
}

func (m *withMultus) name() string { return "Multus, bridge + host-local" }

func (m *withMultus) bind(_ context.Context, s sandbox) error {
	m.api.putPod(s, selection(m.more))
	return nil
}

func (m *withMultus) add(ctx context.Context, s sandbox) error {
	return execute(ctx, m.plugin, wire.Add, s, m.config)
}

func (m *withMultus) del(ctx context.Context, s sandbox) error {
	return execute(ctx, m.plugin, wire.Del, s, m.config)
}

func (m *withMultus) clear(_ context.Context, s sandbox) error {
	m.api.deletePod(s)
	return nil
}
