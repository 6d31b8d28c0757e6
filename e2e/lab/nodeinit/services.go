package nodeinit

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// service is one program that init keeps running.
type service struct {
	name string
	argv []string
	// before, if set, says whether what the first start needs is there.
	before func() bool
}

// services lists a node's programs in the order of their start.
func services(s node.Spec) []service {
	ready := func() bool { return apiReady(s.API) }
	kubelet := service{name: "kubelet", before: func() bool { return containerdReady() && ready() },
		argv: []string{"kubelet", "--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/" + s.Registers + ".conf",
			"--hostname-override=" + s.Registers, "--node-ip=" + join(s.IPs), "--v=2"}}
	out := []service{{name: "containerd", argv: []string{"containerd", "--config", "/etc/containerd.toml"}}}
	if s.ControlPlane {
		out = append(out, etcd(), apiServer(s),
			service{name: "kube-controller-manager", before: ready, argv: controllerManager(s)},
			service{name: "kube-scheduler", before: ready, argv: append(kubeconfigs("kube-scheduler", "scheduler"), "--bind-address=127.0.0.1", "--leader-elect=false")})
	}
	return append(out, kubelet)
}

const etcdURL = "http://127.0.0.1:2379"

func etcd() service {
	const peer = "http://127.0.0.1:2380"
	return service{name: "etcd", argv: []string{"etcd", "--data-dir=/var/lib/etcd/data", "--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer}}
}

func apiServer(s node.Spec) service {
	const pki = "/etc/kubernetes/"
	return service{name: "kube-apiserver", before: func() bool { return httpReady(etcdURL + "/health") }, argv: []string{"kube-apiserver",
		"--etcd-servers=" + etcdURL, "--advertise-address=" + s.API.Addr().String(), fmt.Sprintf("--secure-port=%d", s.API.Port()),
		"--tls-cert-file=" + pki + "apiserver.crt", "--tls-private-key-file=" + pki + "apiserver.key", "--client-ca-file=" + pki + "ca.crt",
		"--kubelet-client-certificate=" + pki + "kubelet-client.crt", "--kubelet-client-key=" + pki + "kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki + "sa.pub", "--service-account-signing-key-file=" + pki + "sa.key",
		"--requestheader-client-ca-file=" + pki + "front-proxy-ca.crt", "--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-", "--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + pki + "front-proxy.crt", "--proxy-client-key-file=" + pki + "front-proxy.key",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--service-cluster-ip-range=" + join(s.ServiceCIDRs), "--profiling=false",
		"--audit-policy-file=/etc/kubernetes/audit.yaml", "--audit-log-path=/var/log/audit.log", "--audit-log-mode=blocking-strict"}}
}

// controllerManager does not allocate pod subnets: the CNI under test does.
func controllerManager(s node.Spec) []string {
	const pki = "/etc/kubernetes/"
	return append(kubeconfigs("kube-controller-manager", "controller-manager"), "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file="+pki+"sa.key", "--root-ca-file="+pki+"ca.crt",
		"--cluster-signing-cert-file="+pki+"ca.crt", "--cluster-signing-key-file="+pki+"ca.key",
		"--allocate-node-cidrs=false", "--service-cluster-ip-range="+join(s.ServiceCIDRs), "--controllers=*")
}

func kubeconfigs(program, user string) []string {
	conf := "/etc/kubernetes/" + user + ".conf"
	return []string{program, "--kubeconfig=" + conf, "--authentication-kubeconfig=" + conf, "--authorization-kubeconfig=" + conf}
}

func join[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ",")
}

// apiReady asks the API server; /readyz includes the bootstrap roles, without
// which the controller manager exits at once.
func apiReady(api netip.AddrPort) bool { return httpReady("https://" + api.String() + "/readyz") }

func httpReady(url string) bool {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		// A question of "yet?", not of trust: nothing is sent and only the status is read.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func containerdReady() bool {
	c, err := net.Dial("unix", "/run/containerd/containerd.sock")
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// start runs a service with its output in /var/log.
func (s service) start() (int, error) {
	program, err := lookPath(s.argv[0])
	if err != nil {
		return 0, err
	}
	log, err := os.OpenFile("/var/log/"+s.name+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return syscall.ForkExec(program, s.argv, &syscall.ProcAttr{Env: os.Environ(), Dir: "/",
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true}})
}

// lookPath is exec.LookPath with the node's PATH, which os.Setenv has set.
func lookPath(name string) (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		full := filepath.Join(dir, name)
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return full, nil
		}
	}
	return "", fmt.Errorf("%s: not in %s", name, os.Getenv("PATH"))
}
