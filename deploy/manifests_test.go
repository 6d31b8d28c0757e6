// Package deploy_test checks the manifests as text: every document is what the API
// server would take, and asks for no more than it should.
package deploy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// kustomization is the part of a kustomization.yaml that deploy/ uses.
type kustomization struct {
	metav1.TypeMeta `json:",inline"`
	Resources       []string `json:"resources"`
	Patches         []struct {
		Path string `json:"path"`
	} `json:"patches,omitempty"`
	ConfigMapGenerator []struct {
		Name      string   `json:"name"`
		Namespace string   `json:"namespace"`
		Behavior  string   `json:"behavior,omitempty"`
		Files     []string `json:"files"`
	} `json:"configMapGenerator,omitempty"`
	Images []struct {
		Name   string `json:"name"`
		NewTag string `json:"newTag"`
	} `json:"images,omitempty"`
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// manifests is what base/ and the overlays that add to it hold, decoded strictly.
type manifests struct {
	pods     map[string]corev1.PodTemplateSpec // by kind/name of the workload
	rules    map[string][]rbacv1.PolicyRule    // by kind/namespace/name of the role
	accounts map[string]corev1.ServiceAccount
	ovs      appsv1.DaemonSet
}

// load reads the files that base/ and the overlays name, and nothing else may lie there.
func load(t *testing.T) manifests {
	t.Helper()
	m := manifests{pods: map[string]corev1.PodTemplateSpec{}, rules: map[string][]rbacv1.PolicyRule{}, accounts: map[string]corev1.ServiceAccount{}}
	for _, dir := range []string{"base", "global", "global-ha"} {
		m.directory(t, dir)
	}
	return m
}

// loadMultus reads one form of deploy/multus with what both share.
func loadMultus(t *testing.T, form string) manifests {
	t.Helper()
	m := manifests{pods: map[string]corev1.PodTemplateSpec{}, rules: map[string][]rbacv1.PolicyRule{}, accounts: map[string]corev1.ServiceAccount{}}
	m.directory(t, "multus/base")
	m.directory(t, "multus/"+form)
	return m
}

// TestMultus checks both forms: what they may do, what of the host they see, and that
// the file they delegate to is Portolan's.
func TestMultus(t *testing.T) {
	for form, want := range map[string]struct {
		image string
		paths []string
	}{
		"thin": {"ghcr.io/k8snetworkplumbingwg/multus-cni:v4.2.2", []string{"/etc/cni/net.d", "/opt/cni/bin"}},
		"thick": {"ghcr.io/k8snetworkplumbingwg/multus-cni:v4.2.2-thick", []string{"/", "/etc/cni/net.d", "/opt/cni/bin", "/run", "/run/k8s.cni.cncf.io",
			"/run/netns", "/var/lib/cni/multus", "/var/lib/kubelet"}},
	} {
		m := loadMultus(t, form)
		var rights []string
		for _, r := range m.rules["ClusterRole//multus"] {
			rights = append(rights, strings.Join(r.Resources, ",")+" "+strings.Join(r.Verbs, ","))
		}
		if !slices.Equal(rights, []string{"network-attachment-definitions get,list,watch", "pods get,list,watch", "pods/status update,patch", "events create,patch,update"}) {
			t.Errorf("%s may %q", form, rights)
		}
		pod := m.pods["DaemonSet/multus"].Spec
		if _, ok := m.accounts[pod.ServiceAccountName]; !ok || !pod.HostNetwork || pod.PriorityClassName == "" {
			t.Errorf("%s: account %q, hostNetwork %t, priority %q", form, pod.ServiceAccountName, pod.HostNetwork, pod.PriorityClassName)
		}
		var paths []string
		for _, v := range pod.Volumes {
			if v.HostPath != nil {
				paths = append(paths, v.HostPath.Path)
			}
		}
		slices.Sort(paths)
		if !slices.Equal(paths, want.paths) {
			t.Errorf("%s: host paths %q, want %q", form, paths, want.paths)
		}
		for _, c := range append(pod.InitContainers, pod.Containers...) {
			if c.Image != want.image {
				t.Errorf("%s/%s runs %s, want %s", form, c.Name, c.Image, want.image)
			}
		}
		names, err := filepath.Glob("multus/" + form + "/*")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(text), filepath.Base(cni.DefaultConflist))
		}
		if !found {
			t.Errorf("%s does not name %s", form, filepath.Base(cni.DefaultConflist))
		}
	}
}

func (m *manifests) directory(t *testing.T, dir string) {
	t.Helper()
	var k kustomization
	read(t, filepath.Join(dir, "kustomization.yaml"), &k)
	known := append([]string{"kustomization.yaml", "cluster.yaml"}, k.Resources...)
	for _, p := range k.Patches {
		known = append(known, p.Path)
	}
	files, err := filepath.Glob(dir + "/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(known, filepath.Base(f)) {
			t.Errorf("%s is not in %s/kustomization.yaml", f, dir)
		}
	}
	for _, r := range k.Resources {
		if strings.HasPrefix(r, "../") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, r))
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			m.add(t, r, doc)
		}
	}
}

func (m *manifests) add(t *testing.T, file string, doc []byte) {
	t.Helper()
	var head metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(doc, &head); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	strict := func(into any) {
		t.Helper()
		if err := yaml.UnmarshalStrict(doc, into); err != nil {
			t.Errorf("%s: %s %s: %v", file, head.Kind, head.Name, err)
		}
	}
	switch head.APIVersion + "/" + head.Kind {
	case "v1/Namespace":
		strict(&corev1.Namespace{})
	case "apiextensions.k8s.io/v1/CustomResourceDefinition":
		// Generated; the API server judges them, and the types have tests of their own.
	case "v1/ServiceAccount":
		var a corev1.ServiceAccount
		strict(&a)
		m.accounts[a.Name] = a
	case "rbac.authorization.k8s.io/v1/ClusterRole":
		var r rbacv1.ClusterRole
		strict(&r)
		m.rules["ClusterRole//"+r.Name] = r.Rules
	case "rbac.authorization.k8s.io/v1/Role":
		var r rbacv1.Role
		strict(&r)
		m.rules["Role/"+r.Namespace+"/"+r.Name] = r.Rules
	case "rbac.authorization.k8s.io/v1/ClusterRoleBinding":
		strict(&rbacv1.ClusterRoleBinding{})
	case "rbac.authorization.k8s.io/v1/RoleBinding":
		strict(&rbacv1.RoleBinding{})
	case "apps/v1/DaemonSet":
		var d appsv1.DaemonSet
		strict(&d)
		m.pods["DaemonSet/"+d.Name] = d.Spec.Template
		if d.Name == "ovs-node" {
			m.ovs = d
		}
	case "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy":
		strict(&admissionv1.ValidatingAdmissionPolicy{})
	case "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicyBinding":
		strict(&admissionv1.ValidatingAdmissionPolicyBinding{})
	case "policy/v1/PodDisruptionBudget":
		strict(&policyv1.PodDisruptionBudget{})
	case "apps/v1/StatefulSet":
		var d appsv1.StatefulSet
		strict(&d)
		m.pods["StatefulSet/"+d.Name] = d.Spec.Template
	case "apps/v1/Deployment":
		var d appsv1.Deployment
		strict(&d)
		m.pods["Deployment/"+d.Name] = d.Spec.Template
	default:
		t.Errorf("%s: %s %s is of no kind that deploy/ should hold", file, head.APIVersion, head.Kind)
	}
}

// TestRules pins every right that is asked for: a new one is a change to this list.
func TestRules(t *testing.T) {
	want := map[string][]string{
		"ClusterRole//portolan-manager": {
			"nodes get,list,watch,patch", "pods,namespaces list,watch", "nodenetworks list,watch",
			"network-attachment-definitions list,watch,create,patch,delete", "userdefinednetworks,clusteruserdefinednetworks list,watch",
			"userdefinednetworks/status,clusteruserdefinednetworks/status patch", "networks list,watch,create,patch,delete", "addressblocks get,list,watch,create,update,delete",
			"ipamclaims list,watch", "ipamclaims/status patch",
			"physicalnetworks,devicepools list,watch", "networks/status,physicalnetworks/status,devicepools/status patch", "events get,list,create,patch",
		},
		"Role/portolan/portolan-manager-lease": {
			"leases create", "leases get,update,patch of portolan-manager", "configmaps create", "configmaps get,update,delete of portolan-isolation",
		},
		"ClusterRole//portolan-node": {
			"nodes,pods get,list,watch,patch", "namespaces list,watch", "networks,physicalnetworks,devicepools list,watch", "network-attachment-definitions,ipamclaims list,watch",
			"addressblocks get,list,watch,create,update,delete", "nodenetworks get,list,watch,create", "nodenetworks/status update",
		},
		"Role/portolan/portolan-node": {"leases get of portolan-manager"},
		"ClusterRole//portolan-controller": {
			"nodes,pods,namespaces list,watch", "networks,addressblocks,physicalnetworks list,watch", "network-attachment-definitions list,watch",
		},
		"Role/portolan/portolan-manager-certificates": {
			"secrets create", "secrets get,update of portolan-ca,portolan-db-tls,portolan-controller-tls,portolan-node-tls",
		},
	}
	m := load(t)
	for name, rules := range m.rules {
		var got []string
		for _, r := range rules {
			s := strings.Join(r.Resources, ",") + " " + strings.Join(r.Verbs, ",")
			if len(r.ResourceNames) > 0 {
				s += " of " + strings.Join(r.ResourceNames, ",")
			}
			got = append(got, s)
			if strings.Contains(strings.Join(slices.Concat(r.APIGroups, r.Resources, r.Verbs), " "), "*") || len(r.NonResourceURLs) > 0 {
				t.Errorf("%s has a wildcard: %+v", name, r)
			}
		}
		if !slices.Equal(got, want[name]) {
			t.Errorf("%s: %q, want %q", name, got, want[name])
		}
	}
	if len(m.rules) != len(want) {
		t.Errorf("%d roles, want %d", len(m.rules), len(want))
	}
}

// TestHostPaths pins what of the host each workload sees (decisions, E).
func TestHostPaths(t *testing.T) {
	want := map[string][]string{
		"DaemonSet/ovs-node": {"/dev/net/tun", "/run/openvswitch", "/var/lib/openvswitch"},
		"DaemonSet/portolan-node": {
			"/etc/cni/net.d", "/opt/cni/bin", "/run", "/run/cdi", "/run/k8s.cni.cncf.io", "/run/netns", "/run/openvswitch", "/run/ovn", "/run/portolan",
			"/var/lib/cni", "/var/lib/kubelet/device-plugins", "/var/lib/kubelet/pod-resources", "/var/lib/portolan",
		},
		"StatefulSet/portolan-db":        {"/run/ovn", "/var/lib/portolan"},
		"Deployment/portolan-controller": {"/run/ovn"},
	}
	for name, pod := range load(t).pods {
		var got []string
		for _, v := range pod.Spec.Volumes {
			if v.HostPath != nil {
				got = append(got, v.HostPath.Path)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want[name]) {
			t.Errorf("%s: host paths %q, want %q", name, got, want[name])
		}
		for _, c := range pod.Spec.Containers {
			for _, v := range c.VolumeMounts {
				if v.Name == "run-netns" && (v.MountPropagation == nil || *v.MountPropagation != corev1.MountPropagationHostToContainer) {
					t.Errorf("%s: namespaces made later do not show", name)
				}
				if v.Name == "host-run" && !v.ReadOnly {
					t.Errorf("%s: the host's /run is writable", name)
				}
			}
		}
	}
}

// TestPods checks what holds for every pod.
func TestPods(t *testing.T) {
	m := load(t)
	privileged := []string{"DaemonSet/ovs-node/vswitchd", "DaemonSet/portolan-node/portolan-node"}
	for name, pod := range m.pods {
		s := pod.Spec
		if !s.HostNetwork || s.DNSPolicy != corev1.DNSDefault {
			t.Errorf("%s needs the pod network or the cluster's DNS, which need it", name)
		}
		if _, ok := m.accounts[s.ServiceAccountName]; !ok {
			t.Errorf("%s: service account %q is not in deploy/", name, s.ServiceAccountName)
		}
		if s.PriorityClassName == "" {
			t.Errorf("%s has no priority", name)
		}
		for _, c := range s.Containers {
			at := name + "/" + c.Name
			if c.Image != "ghcr.io/portolan-cni/portolan:dev" || c.ImagePullPolicy != corev1.PullIfNotPresent {
				t.Errorf("%s runs %s, pulled %s", at, c.Image, c.ImagePullPolicy)
			}
			if len(c.Resources.Requests) == 0 || len(c.Resources.Limits) > 0 {
				t.Errorf("%s: a container of the network has requests and no limits", at)
			}
			sc := c.SecurityContext
			if got := sc != nil && sc.Privileged != nil && *sc.Privileged; got != slices.Contains(privileged, at) {
				t.Errorf("%s: privileged is %v", at, got)
			} else if !got && (sc == nil || sc.Capabilities == nil || !slices.Equal(sc.Capabilities.Drop, []corev1.Capability{"ALL"})) {
				t.Errorf("%s keeps capabilities", at)
			}
			for _, e := range c.Env {
				if strings.HasPrefix(e.Name, "KUBERNETES_") {
					t.Errorf("%s: the API server is named by the configuration, not by %s", at, e.Name)
				}
			}
		}
	}
	if m.ovs.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType {
		t.Errorf("ovs-node is updated by %s: an upgrade would restart the datapath", m.ovs.Spec.UpdateStrategy.Type)
	}
	for _, v := range m.ovs.Spec.Template.Spec.Volumes {
		if v.ConfigMap != nil {
			t.Errorf("ovs-node reads a ConfigMap: a change of it would be an upgrade")
		}
	}
}

const labAPI = "https://172.18.0.3:6443"

// TestPlans checks that each ConfigMap's file is a plan that the programs accept.
func TestPlans(t *testing.T) {
	for dir, server := range map[string]string{"base": "", "global": "", "global-ha": "", "lab": labAPI, "lab-global": labAPI, "lab-global-ha": labAPI} {
		var k kustomization
		read(t, filepath.Join(dir, "kustomization.yaml"), &k)
		if len(k.ConfigMapGenerator) != 1 || k.ConfigMapGenerator[0].Name != "portolan-config" || !slices.Equal(k.ConfigMapGenerator[0].Files, []string{"cluster.yaml"}) {
			t.Fatalf("%s: %+v", dir, k.ConfigMapGenerator)
		}
		c, err := kube.ReadCluster(filepath.Join(dir, "cluster.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if _, problems := kube.ParseCluster(c); len(problems) > 0 || c.Spec.APIServer != server {
			t.Errorf("%s: %+v, API server %q", dir, problems, c.Spec.APIServer)
		}
		if d, err := zone.Parse(c.Spec); err != nil || d.Insecure {
			t.Errorf("%s: databases %+v, %v; plain TCP is chosen by a person, never shipped", dir, d, err)
		}
	}
	var k kustomization
	read(t, "kustomization.yaml", &k)
	if !slices.Equal(k.Resources, []string{"base"}) {
		t.Errorf("deploy/ installs %q", k.Resources)
	}
}
