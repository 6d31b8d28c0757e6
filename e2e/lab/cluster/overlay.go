package cluster

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// overlay is the kustomization to apply: the most fitting of deploy/ (lab-global-ha with
// three databases, lab-ZONE-FAMILIES, lab-ZONE, lab, or deploy/ itself), as it stands if its cluster.yaml describes this
// lab, else under an overlay of our own that replaces that file.
func (l *Lab) overlay(p plan.Plan) (string, error) {
	deploy := filepath.Join(l.Builder.Repo, "deploy")
	dir := deploy
	names := []string{"lab-" + p.Zone + "-" + p.Families, "lab-" + p.Zone, "lab"}
	if p.Databases > 1 {
		names = []string{"lab-" + p.Zone + "-ha"}
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(deploy, name, "kustomization.yaml")); err == nil {
			dir = filepath.Join(deploy, name)
			break
		}
	}
	config, err := os.ReadFile(filepath.Join(dir, "cluster.yaml"))
	if os.IsNotExist(err) {
		return dir, nil // nothing to say about the cluster
	}
	if err != nil {
		return "", err
	}
	ours, err := clusterConfig(string(config), p)
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Join(dir, "cluster.yaml"), err)
	}
	if ours == string(config) {
		return dir, nil
	}
	return l.writeOverlay(dir, ours)
}

// writeOverlay makes a kustomization beside the lab's state. Kustomize wants bases
// by relative path, and files inside its own directory.
func (l *Lab) writeOverlay(base, config string) (string, error) {
	dir := filepath.Join(l.Dirs.State, "deploy")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	relative, err := filepath.Rel(dir, base)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [%s]
configMapGenerator:
- name: portolan-config
  namespace: portolan
  behavior: replace
  files: [cluster.yaml]
`, relative)
	if err := os.WriteFile(filepath.Join(dir, "cluster.yaml"), []byte(config), 0o644); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644)
}

// clusterConfig puts a lab's plan into the text of a Cluster. Every field must
// stand there already: the lab replaces values, it does not know the format.
func clusterConfig(text string, p plan.Plan) (string, error) {
	fields := [][2]string{
		{"apiServer", "https://" + p.API().String()},
		{"zone", p.Zone},
		{"clusterSubnets", list(p.PodCIDRs, func(c netip.Prefix) string {
			bits := "/24"
			if c.Addr().Is6() {
				bits = "/64"
			}
			return c.String() + bits
		})},
		{"serviceSubnets", list(p.ServiceCIDRs, netip.Prefix.String)},
	}
	if p.Multus != "" {
		fields = append(fields, [2]string{"multiNetwork", "multus"})
	}
	if p.Zone == "global" {
		var servers []string
		for _, a := range p.DatabaseServers() {
			servers = append(servers, strconv.Quote(a.String()))
		}
		fields = append(fields, [2]string{"databases", "[" + strings.Join(servers, ", ") + "]"},
			[2]string{"insecureDatabases", strconv.FormatBool(p.Insecure)}, [2]string{"mtu", strconv.Itoa(p.PodMTU())})
	}
	for _, f := range fields {
		field := regexp.MustCompile(`(?m)^( *` + f[0] + `: ).*$`)
		if !field.MatchString(text) {
			return "", fmt.Errorf("no line %q to put %s in", f[0]+": …", f[1])
		}
		text = field.ReplaceAllString(text, "${1}"+f[1])
	}
	return text, nil
}

// list is a YAML flow sequence; an IPv6 prefix needs its quotes there.
func list(prefixes []netip.Prefix, say func(netip.Prefix) string) string {
	var out []string
	for _, p := range prefixes {
		s := say(p)
		if p.Addr().Is6() {
			s = `"` + s + `"`
		}
		out = append(out, s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
