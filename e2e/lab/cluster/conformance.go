package cluster

import (
	"context"
	"os"
	"path/filepath"
	"regexp"

	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Conformance builds upstream's network tests, if they are not built, and runs
// those that focus matches and skip does not.
func (l *Lab) Conformance(ctx context.Context, focus, skip string) error {
	r, err := l.current()
	if err != nil {
		return err
	}
	binary, err := l.Builder.UpstreamTests(ctx)
	if err != nil {
		return err
	}
	report := filepath.Join(l.Dirs.State, "log", "conformance")
	if err := os.MkdirAll(report, 0o755); err != nil {
		return err
	}
	argv := []string{"nsenter", "--net=" + wire.Path(wire.LAN()), binary, "-test.timeout=2h", "-ginkgo.v", "-ginkgo.no-color",
		"-ginkgo.focus=" + focus, "-kubeconfig=" + l.Kubeconfig(), "-provider=skeleton",
		"-report-dir=" + report, "-kubectl-path=" + filepath.Join(r.Products.Kube, "kubectl")}
	if skip != "" {
		argv = append(argv, "-ginkgo.skip="+skip)
	}
	log, err := os.Create(filepath.Join(l.Dirs.State, "log", "conformance.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	l.say("running upstream's tests; all they say is in %s", log.Name())
	out, err := proc.Cmd{Argv: argv, Dir: report, Log: log}.Output(ctx)
	for _, line := range summary(out) {
		l.say("%s", line)
	}
	return err
}

// specLine matches the lines that say which specs ran and how they ended.
var specLine = regexp.MustCompile(`(?m)^(?:Ran \d+ of \d+ Specs.*|(?:SUCCESS|FAIL)!.*|\s*\[FAIL\].*)$`)

// summary picks those lines from the output of a run.
func summary(out string) []string { return specLine.FindAllString(out, -1) }
