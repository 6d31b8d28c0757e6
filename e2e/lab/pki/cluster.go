package pki

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// WriteCluster makes everything a lab's cluster needs in dir: ca, front-proxy-ca,
// apiserver, kubelet-client, front-proxy, sa, and for each of admin,
// controller-manager, scheduler and the nodes a certificate and a NAME.conf.
func WriteCluster(dir string, p plan.Plan) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := NewAuthority(dir, "ca")
	if err != nil {
		return err
	}
	front, err := NewAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := NewTokenKey(dir, "sa"); err != nil {
		return err
	}
	if err := front.Issue("front-proxy", Subject{Name: "front-proxy-client"}); err != nil {
		return err
	}
	if err := ca.Issue("apiserver", apiServer(p)); err != nil {
		return err
	}
	admins := []string{"system:masters"}
	if err := ca.Issue("kubelet-client", Subject{Name: "kube-apiserver-kubelet-client", Groups: admins}); err != nil {
		return err
	}
	users := map[string]Subject{
		"admin":              {Name: "admin", Groups: admins},
		"controller-manager": {Name: "system:kube-controller-manager"},
		"scheduler":          {Name: "system:kube-scheduler"},
	}
	for _, n := range p.Machines {
		users[n.Name] = nodeSubject(n.Name, n.IPs())
	}
	for file, s := range users {
		if err := ca.Issue(file, s); err != nil {
			return err
		}
		if err := writeKubeconfig(dir, file, "https://"+p.API().String()); err != nil {
			return err
		}
	}
	return nil
}

// WriteNode makes what a node needs to register by a name and be reached at
// addresses: NAME.conf and its certificate.
func WriteNode(dir string, p plan.Plan, name string, ips []netip.Addr) error {
	ca, err := OpenAuthority(dir, "ca")
	if err != nil {
		return err
	}
	if err := ca.Issue(name, nodeSubject(name, ips)); err != nil {
		return err
	}
	return writeKubeconfig(dir, name, "https://"+p.API().String())
}

func nodeSubject(name string, ips []netip.Addr) Subject {
	return Subject{Name: "system:node:" + name, Groups: []string{"system:nodes"}, DNS: []string{name}, IPs: ips}
}

// apiServer names every way the API server is reached: the control plane's
// addresses, loopback, and the first address of each service range.
func apiServer(p plan.Plan) Subject {
	s := Subject{Name: "kube-apiserver", DNS: []string{"localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}}
	s.IPs = append(s.IPs, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	s.IPs = append(s.IPs, p.Machines[0].IPs()...)
	for _, c := range p.ServiceCIDRs {
		s.IPs = append(s.IPs, c.Masked().Addr().Next())
	}
	return s
}

func writeKubeconfig(dir, user, server string) error {
	data := map[string]string{}
	for _, f := range []string{"ca.crt", user + ".crt", user + ".key"} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return fmt.Errorf("kubeconfig of %s: %w", user, err)
		}
		data[filepath.Ext(f)+f] = base64.StdEncoding.EncodeToString(b)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %s
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: lab
  context: {cluster: lab, user: %s}
`, server, data[".crtca.crt"], user, data[".crt"+user+".crt"], data[".key"+user+".key"], user)
	return os.WriteFile(filepath.Join(dir, user+".conf"), []byte(text), 0o600)
}
