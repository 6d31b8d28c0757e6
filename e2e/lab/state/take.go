package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/node"
)

// patience is how long one snapshot may take.
const patience = 30 * time.Second

// databases are the three of a node, by how they are called here: socket below the
// node's /run, and name.
func databases() map[string][2]string {
	return map[string][2]string{
		"NB":  {"ovn/ovnnb_db.sock", "OVN_Northbound"},
		"SB":  {"ovn/ovnsb_db.sock", "OVN_Southbound"},
		"OVS": {"openvswitch/db.sock", "Open_vSwitch"},
	}
}

// root is where a node's files are seen from outside.
func root(name string) (string, error) {
	pid, err := node.InitPID(name)
	return fmt.Sprintf("/proc/%d/root", pid), err
}

// socket is a database's on a node; an error that is fs.ErrNotExist where the node
// has none.
func socket(name, db string) (path, database string, err error) {
	dir, err := root(name)
	if err != nil {
		return "", "", err
	}
	d := databases()[db]
	path = filepath.Join(dir, "run", d[0])
	_, err = os.Stat(path)
	return path, d[1], err
}

// Take looks at all that a node holds. A database that does not answer is an
// error; one that the node does not have (zone=global) is left out.
func Take(ctx context.Context, name string) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := State{}
	renames := map[string]string{}
	var errs []error
	for _, db := range []string{"NB", "SB", "OVS"} {
		path, database, err := socket(name, db)
		if errors.Is(err, fs.ErrNotExist) && db != "OVS" {
			continue
		}
		if err != nil {
			return nil, err
		}
		all, err := readAll(ctx, path, database)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", database, name, err))
			continue
		}
		if db == "OVS" {
			renames = podDevices(all)
		}
		s.render(db, all)
	}
	errs = append(errs, s.flows(ctx, name), s.kernel(ctx, name), s.files(name))
	return s.rename(renames), errors.Join(errs...)
}

// podDevices names a pod's device by its logical port, and a sandbox by what it is.
func podDevices(ovs tables) map[string]string {
	out := map[string]string{}
	for _, row := range ovs["Interface"] {
		ids, _ := row["external_ids"].(dict)
		got := map[any]any{}
		for _, kv := range ids {
			got[kv[0]] = kv[1]
		}
		owner, _ := got["portolan/owner"].(string)
		port, _ := got["iface-id"].(string)
		device, _ := row["name"].(string)
		if !strings.HasPrefix(owner, "attachment/") || port == "" || device == "" {
			continue
		}
		out[device] = "veth:" + port
		if sandbox, _ := got["sandbox"].(string); len(sandbox) > 12 {
			out[sandbox] = "sandbox"
		}
	}
	return out
}

// learned are br-int's tables of what was learned from traffic (OVN 25.03): MAC
// bindings, their use, and FDB.
var learned = map[string]bool{"66": true, "67": true, "71": true, "72": true, "79": true}

// flows takes br-ex's flows as they are, and counts br-int's by table: what is in
// those follows from the Logical_Flow table, which is compared, and has numbers in
// it that OVN chose.
func (s State) flows(ctx context.Context, name string) error {
	text, err := node.Run(ctx, name, "ovs-ofctl", "-O", "OpenFlow15", "--names", "--no-stats", "dump-flows", "br-ex")
	if err != nil {
		return err
	}
	for _, line := range lines(text) {
		s.add("flow br-ex", line, nil)
	}
	text, err = node.Run(ctx, name, "ovs-ofctl", "-O", "OpenFlow15", "--no-stats", "dump-flows", "br-int")
	if err != nil {
		return err
	}
	count := map[string]int{}
	table := regexp.MustCompile(`table=(\d+)`)
	for _, line := range lines(text) {
		n := "0"
		if m := table.FindStringSubmatch(line); m != nil {
			n = m[1]
		}
		if !learned[n] {
			count[n]++
		}
	}
	for n, flows := range count {
		s.add("flow br-int", "table "+n, map[string]string{"flows": fmt.Sprint(flows)})
	}
	return nil
}

// kernel takes links, addresses, routes, rules, permanent neighbours and nftables.
func (s State) kernel(ctx context.Context, name string) error {
	text, err := node.Run(ctx, name, "sh", "-c", "ip -d -j link show; for s in 'addr show' 'route show table all' '-6 route show table all' rule '-6 rule' 'neigh show nud permanent'; do "+
		"echo \"== $s\"; case \"$s\" in addr*) ip -o $s;; *) ip $s;; esac; done; echo '== nft'; nft -s list ruleset")
	if err != nil {
		return err
	}
	links, rest, _ := strings.Cut(text, "\n==")
	if err := s.links([]byte(links)); err != nil {
		return err
	}
	rest, rules, _ := strings.Cut(rest, "\n== nft\n")
	section := ""
	for _, line := range lines("==" + rest) {
		if title, ok := strings.CutPrefix(line, "== "); ok {
			section = strings.NewReplacer(" show", "", " table all", "").Replace(title)
		} else if !passing(line) {
			s.add(section, address(line), nil)
		}
	}
	s.nft(rules)
	return nil
}

// nft files each line of a ruleset under the table and chain that it is in.
func (s State) nft(text string) {
	var within []string
	for _, line := range lines(text) {
		if title, ok := strings.CutSuffix(line, " {"); ok {
			within = append(within, title)
			s.add("nft", strings.Join(within, " "), nil)
		} else if line == "}" && len(within) > 0 {
			within = within[:len(within)-1]
		} else {
			s.add("nft", strings.Join(within, " ")+": "+line, nil)
		}
	}
}

// passing are lines about link-local IPv6 and multicast, which the kernel makes and
// forgets as links come up.
func passing(line string) bool {
	return strings.Contains(line, "fe80:") || strings.Contains(line, "ff00::/8") || strings.Contains(line, "linkdown")
}

var (
	number   = regexp.MustCompile(`^\d+: `)
	lifetime = regexp.MustCompile(`\s+valid_lft .*$`)
	expiry   = regexp.MustCompile(` expires \d+sec`)
)

// address cuts what counts off a line of ip's.
func address(line string) string {
	line = number.ReplaceAllString(line, "")
	line = lifetime.ReplaceAllString(line, "")
	line = expiry.ReplaceAllString(line, "")
	return strings.Join(strings.Fields(strings.ReplaceAll(line, "\\", "")), " ")
}

func (s State) links(text []byte) error {
	var list []struct {
		Name    string   `json:"ifname"`
		Link    string   `json:"link"`
		Master  string   `json:"master"`
		MTU     int      `json:"mtu"`
		MAC     string   `json:"address"`
		Flags   []string `json:"flags"`
		Promisc int      `json:"promiscuity"`
		Info    struct {
			Kind string `json:"info_kind"`
		} `json:"linkinfo"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("links: %w in %.100q", err, text)
	}
	for _, l := range list {
		fields := map[string]string{"kind": l.Info.Kind, "mtu": fmt.Sprint(l.MTU), "up": fmt.Sprint(slices.Contains(l.Flags, "UP"))}
		if l.Master != "" {
			fields["master"] = l.Master
		}
		if l.Name == "eth0" || l.Name == "br-ex" || l.Name == "ovn-k8s-mp0" { // the kernel makes up all others
			fields["mac"] = l.MAC
		}
		s.add("link", l.Name, fields)
	}
	return nil
}

// watched are the directories whose files we write.
var watched = []string{"etc/cni/net.d", "run/portolan", "var/lib/portolan"}

// sysctls are those that we set, as patterns below /proc/sys.
var sysctls = []string{"net/ipv4/conf/*/forwarding", "net/ipv4/conf/*/rp_filter", "net/ipv6/conf/*/accept_ra", "net/ipv6/conf/*/autoconf", "net/ipv6/conf/*/forwarding"}

// files takes what lies in our directories, with a hash of what it says. Sysctls
// of pods' veths are left out: they are the kernel's defaults.
func (s State) files(name string) error {
	base, err := root(name)
	if err != nil {
		return err
	}
	for _, dir := range watched {
		err := filepath.WalkDir(filepath.Join(base, dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if filepath.Base(path) == "repairs" { // what was set right, once something was
				return nil
			}
			fields := map[string]string{"mode": d.Type().String()}
			if d.Type().IsRegular() && !moving(path) {
				content, err := os.ReadFile(path)
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				if err != nil {
					return err
				}
				sum := sha256.Sum256(content)
				fields["sha256"] = hex.EncodeToString(sum[:6])
			}
			s.add("file", strings.TrimPrefix(path, base), fields)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.parameters(name)
}

// moving tells files whose content is a history: databases, locks, and the journal
// of addresses, in which pods that have gone are found until it is written anew.
func moving(path string) bool {
	return strings.HasSuffix(path, ".db") || strings.HasSuffix(path, ".lock") || filepath.Base(path) == "addresses"
}

// parameters reads sysctls in the node's network namespace, whose /proc is its init's.
func (s State) parameters(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	text, err := node.Run(ctx, name, "sh", "-c", "cd /proc/sys && grep -H . "+strings.Join(sysctls, " ")+" || true")
	if err != nil {
		return err
	}
	for _, line := range lines(text) {
		path, val, _ := strings.Cut(line, ":")
		s.add("sysctl", path, map[string]string{"value": val})
	}
	return nil
}

func lines(text string) []string {
	var out []string
	for _, l := range strings.Split(text, "\n") {
		if l = strings.TrimRight(l, " \t\r"); strings.TrimSpace(l) != "" {
			out = append(out, strings.TrimLeft(l, " \t"))
		}
	}
	return out
}

// Watch begins to collect every change that anybody makes to a node's database
// ("NB", "SB", "OVS"), but of what is volatile.
func Watch(ctx context.Context, name, db string) (*Watcher, error) {
	path, database, err := socket(name, db)
	if err != nil {
		return nil, err
	}
	return watch(ctx, path, database, renderer{db: db, drop: volatile(), keys: volatileKeys()})
}

// Settled waits until a node is as it was, and gives the last difference and how
// long it took from begin; an unequal node is no error. What is ephemeral is not
// compared, so a database that is being filled again differs and then does not.
func Settled(ctx context.Context, name string, before State, patience time.Duration) ([]Difference, error) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := Take(ctx, name)
		var diff []Difference
		if err == nil {
			if diff = Diff(before, now); len(diff) == 0 {
				return nil, nil
			}
		}
		if time.Now().After(deadline) {
			return diff, err
		}
		select {
		case <-ctx.Done():
			return diff, errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}
