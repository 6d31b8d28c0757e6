package nodeinit

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

//go:embed containerd.toml
var containerdConfig string

//go:embed kubelet.yaml
var kubeletConfig string

//go:embed audit.yaml
var auditPolicy string

//go:embed standin.conflist
var standInConfig string

// ovnTools are run from the base system by its own loader and libraries: the
// machine's distribution may be older, or have none.
var ovnTools = []string{"ovn-nbctl", "ovn-sbctl", "ovn-appctl", "ovn-trace", "ovs-vsctl", "ovs-appctl", "ovs-ofctl", "ovs-dpctl", "ovsdb-client", "ovsdb-tool"}

const ovnTool = `#!/bin/sh
exec /opt/lab/base/lib64/ld-linux-x86-64.so.2 --library-path /opt/lab/base/usr/lib/x86_64-linux-gnu /opt/lab/base/usr/bin/%s "$@"
`

// writeFiles writes into the root what kubeadm and a package manager would.
func writeFiles(s node.Spec, root string) error {
	for _, d := range []string{"/oldroot", "/etc/kubernetes/manifests", "/etc/cni/net.d", "/opt/cni/bin", "/run/netns", "/run/openvswitch", "/run/ovn", "/run/lock"} {
		if err := os.MkdirAll(root+d, 0o755); err != nil {
			return err
		}
	}
	if err := bind(root+"/run/netns", root+"/run/netns"); err != nil {
		return err
	}
	if err := copyDir("/usr/lib/cni", root+"/opt/cni/bin", 0o755); err != nil {
		return err
	}
	if err := copyDir(s.PKI, root+"/etc/kubernetes", 0o600); err != nil {
		return err
	}
	files := map[string]string{
		"/etc/hostname":    s.Name + "\n",
		"/etc/hosts":       "127.0.0.1 localhost\n::1 localhost\n" + strings.Join(s.Hosts, "\n") + "\n",
		"/etc/resolv.conf": "nameserver " + s.DNS().String() + "\n",

		"/etc/kubernetes/audit.yaml": auditPolicy,
	}
	for _, t := range ovnTools {
		files["/opt/lab/ovn/"+t] = fmt.Sprintf(ovnTool, t)
	}
	for path, text := range map[string]string{"/etc/containerd.toml": containerdConfig, "/etc/kubernetes/kubelet.yaml": kubeletConfig} {
		filled, err := fill(text, s)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		files[path] = filled
	}
	if s.StandIn {
		filled, err := fill(standInConfig, s)
		if err != nil {
			return err
		}
		files["/etc/cni/net.d/10-standin.conflist"] = filled
	}
	for path, text := range files {
		if err := write(root+path, text); err != nil {
			return err
		}
	}
	return nil
}

// write replaces a file. It is removed first: it may be a link of the machine's.
func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	return os.WriteFile(path, []byte(text), mode)
}

func fill(text string, s node.Spec) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = t.Execute(&b, s)
	return b.String(), err
}

func copyDir(from, to string, mode os.FileMode) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, mode); err != nil {
			return err
		}
	}
	return nil
}
