package cluster

import (
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

const config = `kind: Cluster
spec:
  apiServer: https://172.18.0.3:6443
  zone: node
  clusterSubnets: [10.244.0.0/16/24]
  serviceSubnets: [10.96.0.0/16]
  datapath: netdev
`

func TestTheDefaultLabIsWhatDeployDescribes(t *testing.T) {
	got, err := clusterConfig(config, plan.Of(options(plan.Portolan)))
	if err != nil {
		t.Fatal(err)
	}
	if got != config {
		t.Errorf("changed to\n%s", got)
	}
}

func TestPlanGoesIntoTheClusterConfig(t *testing.T) {
	global := plan.Options{Nodes: 3, Zone: "global", Families: plan.Dual, CNI: plan.Portolan, Databases: 3, Insecure: true}
	got, err := clusterConfig(config+"  databases: []\n  insecureDatabases: false\n  mtu: 1400\n", plan.Of(global))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"  zone: global\n", `  clusterSubnets: [10.244.0.0/16/24, "fd00:10:244::/48/64"]`,
		`  serviceSubnets: [10.96.0.0/16, "fd00:10:96::/112"]`, "  datapath: netdev\n",
		`  databases: ["172.18.0.3", "172.18.0.2", "172.18.0.4"]`, "  insecureDatabases: true\n", "  mtu: 1442\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if _, err := clusterConfig("kind: Cluster\n", plan.Of(options(plan.Portolan))); err == nil {
		t.Error("a config without the fields passed")
	}
}
