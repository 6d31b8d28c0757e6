//go:build kernel

package cni_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// plugin is the built binary behind libcni, as a runtime uses it.
func plugin(t *testing.T, socket, version string) (*libcni.CNIConfig, *libcni.NetworkConfigList) {
	t.Helper()
	list := strings.Replace(string(cni.Conflist(socket, cni.Native)), `"cniVersion": "1.0.0"`, fmt.Sprintf(`"cniVersion": %q`, version), 1)
	if version != "1.1.0" { // libcni takes the highest of cniVersions that it knows
		list = strings.Replace(list, `"1.1.0"`, fmt.Sprintf("%q", version), 1)
	}
	conf, err := libcni.ConfListFromBytes([]byte(list))
	if err != nil {
		t.Fatal(err)
	}
	conf.CNIVersion = version
	return libcni.NewCNIConfigWithCacheDir([]string{binDir()}, t.TempDir(), nil), conf
}

func runtimeConf(id, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_UID", "uid-web"}}}
}

func TestKernelVersions(t *testing.T) {
	for _, version := range wire.Versions() {
		t.Run(version, func(t *testing.T) {
			s := testServer(t)
			ns := sandbox(t, "v"+version)
			c, list := plugin(t, s.config.Socket, version)
			rc := runtimeConf("v"+version, ns)
			res, err := c.AddNetworkList(t.Context(), list, rc)
			if err != nil {
				t.Fatal(err)
			}
			if res.Version() != version {
				t.Errorf("asked for %s, got %s", version, res.Version())
			}
			r, err := types100.NewResultFromResult(res)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.IPs) != 2 || r.IPs[0].Address.String() != "10.244.1.3/24" || *r.IPs[0].Interface != 1 ||
				len(r.Interfaces) != 2 || r.Interfaces[1].Sandbox != ns || len(r.Routes) != 2 {
				t.Errorf("%v", r)
			}
			if mtu := r.Interfaces[1].Mtu; (mtu == 1400) != (version == "1.1.0") {
				t.Errorf("mtu %d in a result of %s", mtu, version)
			}
			if err := c.CheckNetworkList(t.Context(), list, rc); err != nil {
				t.Error(err)
			}
			if err := c.DelNetworkList(t.Context(), list, rc); err != nil {
				t.Error(err)
			}
			s.must("gone uid-web")
			if got := s.left(); got != clean {
				t.Error(got)
			}
		})
	}
}

func TestKernelStatusAndGC(t *testing.T) {
	s := testServer(t)
	c, list := plugin(t, s.config.Socket, "1.1.0")
	if err := c.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Error(err)
	}
	ns := sandbox(t, "gc")
	if _, err := c.AddNetworkList(t.Context(), list, runtimeConf("gc", ns)); err != nil {
		t.Fatal(err)
	}
	keep := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "gc", IfName: "eth0"}}}
	if err := c.GCNetworkList(t.Context(), list, keep); err != nil {
		t.Error(err)
	}
	if got := s.left(); got != "veths=1 ports=1 owners [uid-web]" {
		t.Errorf("GC removed what it was told to keep: %s", got)
	}
	// The runtime's cache is gone too, so that only the plugin can know of it.
	fresh, _ := plugin(t, s.config.Socket, "1.1.0")
	if err := fresh.GCNetworkList(t.Context(), list, &libcni.GCArgs{}); err != nil { // sends null
		t.Error(err)
	}
	if got := s.left(); got != "veths=0 ports=0 owners [uid-web]" {
		t.Error(got)
	}
	s.stop()
	err := c.GetStatusNetworkList(t.Context(), list)
	if e, ok := err.(*types.Error); !ok || e.Code != wire.CodeUnavailable || !strings.Contains(e.Msg, "portolan-node is not running") {
		t.Errorf("STATUS without an agent: %v", err)
	}
	_, err = c.AddNetworkList(t.Context(), list, runtimeConf("gc2", ns))
	if err == nil || !strings.Contains(err.Error(), "portolan-node is not running on this node") {
		t.Errorf("ADD without an agent: %v", err)
	}
}

// TestKernelExec measures what the runtime sees: the plugin executed, the pod prepared.
func TestKernelExec(t *testing.T) {
	s := testServer(t)
	c, list := plugin(t, s.config.Socket, "1.0.0")
	var took []time.Duration
	for i := range 40 {
		id := fmt.Sprintf("exec%d", i)
		ns := sandbox(t, id)
		s.must("bound shop/web")
		began := time.Now()
		if _, err := c.AddNetworkList(t.Context(), list, runtimeConf(id, ns)); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		if err := c.DelNetworkList(t.Context(), list, runtimeConf(id, ns)); err != nil {
			t.Fatal(err)
		}
		s.must("gone uid-web")
	}
	t.Logf("ADD by libcni 1.3, plugin executed: %s", quantiles(took))
	var start []time.Duration
	for range 100 {
		p := exec.Command(filepath.Join(binDir(), cni.BinaryName))
		p.Env = []string{"CNI_COMMAND=VERSION"}
		p.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
		began := time.Now()
		if out, err := p.CombinedOutput(); err != nil || !strings.Contains(string(out), `"supportedVersions":["0.4.0","1.0.0","1.1.0"]`) {
			t.Fatalf("VERSION: %v: %s", err, out)
		}
		start = append(start, time.Since(began))
	}
	t.Logf("VERSION, executed: %s", quantiles(start))
}

func quantiles(d []time.Duration) string {
	slices.Sort(d)
	return fmt.Sprintf("n=%d p50=%s p90=%s max=%s", len(d), d[len(d)/2].Round(10*time.Microsecond),
		d[len(d)*9/10].Round(10*time.Microsecond), d[len(d)-1].Round(10*time.Microsecond))
}
