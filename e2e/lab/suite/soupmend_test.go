package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/soup"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

const subnetsKey = "k8s.ovn.org/node-subnets"

// edit makes a node's subnets nonsense, or another node's, whether a manager leads or not:
// the node's own agent remembers them, from some seconds after it was given them.
func (k *kitchen) edit(s soup.Step) error {
	bad := "garbage"
	if len(s.Args) == 2 {
		if _, bad, _ = strings.Cut(k.given[s.Args[1]], " "); bad == "" {
			return fmt.Errorf("no node is called %s", s.Args[1])
		}
	}
	if err := inTime(time.Minute, func() error { return k.remembered(s.Args[0]) }); err != nil {
		return err
	}
	_, err := k.kubectl("annotate", "node", s.Args[0], "--overwrite", subnetsKey+"="+bad)
	return err
}

// remembered reports whether a node's NodeNetwork says what the node was given.
func (k *kitchen) remembered(n string) error {
	uid, err := k.kubectl("get", "node", n, "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		return err
	}
	says, err := k.kubectl("get", "nodenetwork", n, "-o", "jsonpath={.status.allocation.nodeUID}")
	if err == nil && says != uid {
		err = fmt.Errorf("the NodeNetwork of %s says what the Node %q runs with, and this is %q", n, says, uid)
	}
	return err
}

// led reports whether a manager leads, and has begun to after the last was killed.
// Without one, what becomes of a node that is deleted is another matter (docs/limits.md).
func (k *kitchen) led() error {
	text, err := k.kubectl("-n", "portolan", "get", "lease", "portolan-manager", "-o", "jsonpath={.spec.renewTime}")
	if err != nil {
		return err
	}
	renewed, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(text))
	if err != nil {
		return err
	}
	if renewed.Before(k.disturbed) || time.Since(renewed) > 5*time.Second {
		return fmt.Errorf("no manager leads: one did at %s, was killed at %s", renewed.UTC(), k.disturbed.UTC())
	}
	return nil
}

// allGiven reports whether every node has the id and subnets that it had.
func (k *kitchen) allGiven() error {
	for _, n := range k.nodes {
		if now := given(k.t, n); now != k.given[n] {
			return fmt.Errorf("node %s has %q, had %q", n, now, k.given[n])
		}
	}
	return nil
}

// mend makes the lab what it was before the first list, so that the next run proves
// something: by deleting all pods; where that is not enough, by giving nodes what they
// had, and by taking the databases away from nodes that differ.
func (k *kitchen) mend(pristine map[string]state.State) error {
	if k.clean(pristine) == nil {
		return nil
	}
	if k.allGiven() != nil {
		if err := k.giveAgain(); err != nil {
			return err
		}
	}
	for _, n := range k.nodes {
		if diff, err := state.Settled(k.t.Context(), n, pristine[n], 0); err == nil && len(diff) == 0 {
			continue
		}
		for _, db := range []string{"NB", "SB"} {
			if err := absent(faults.Wiped(db).Do(k.t.Context(), k.rig(n))); err != nil {
				return err
			}
		}
	}
	return k.clean(pristine)
}

// giveAgain gives every node its id and subnets by hand, while there is no manager
// that holds against it.
func (k *kitchen) giveAgain() error {
	scale := []string{"-n", "portolan", "scale", "deployment", "portolan-manager", "--replicas=0"}
	if _, err := k.kubectl(scale...); err != nil {
		return err
	}
	if _, err := k.kubectl("-n", "portolan", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=portolan-manager", "--timeout=60s"); err != nil {
		return err
	}
	for _, n := range k.nodes {
		if err := k.giveNode(n); err != nil {
			return err
		}
	}
	k.disturbed = time.Now()
	if _, err := k.kubectl(append(slices.Clone(scale[:len(scale)-1]), "--replicas=2")...); err != nil {
		return err
	}
	if err := inTime(time.Minute, k.led); err != nil {
		return err
	}
	return k.allGiven()
}

// giveNode writes what a node had where its next agent looks, while the agent that
// would write something else stands still.
func (k *kitchen) giveNode(n string) error {
	if err := absent(signal(n, "portolan-node", syscall.SIGSTOP)); err != nil {
		return err
	}
	id, subnets, _ := strings.Cut(k.given[n], " ")
	uid, err := k.kubectl("get", "node", n, "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		return err
	}
	var had struct{ Default []string }
	if err := json.Unmarshal([]byte(subnets), &had); err != nil {
		return err
	}
	text, err := json.Marshal(had.Default)
	if err != nil {
		return err
	}
	if _, err := k.kubectl("annotate", "node", n, "--overwrite", "k8s.ovn.org/node-id="+id, subnetsKey+"="+subnets); err != nil {
		return err
	}
	if _, err := k.kubectl("patch", "nodenetwork", n, "--subresource=status", "--type=merge",
		"-p", fmt.Sprintf(`{"status":{"allocation":{"nodeUID":%q,"nodeID":%s,"subnets":%s}}}`, uid, id, text)); err != nil {
		return err
	}
	return absent(signal(n, "portolan-node", syscall.SIGKILL))
}

// sabotage breaks what nobody mends: a node answers no ping.
func (k *kitchen) sabotage(host string) error {
	_, err := node.Run(k.t.Context(), host, "nft", "add table inet sabotage; add chain inet sabotage in { type filter hook input priority 0; }; "+
		"add rule inet sabotage in icmp type echo-request drop; add rule inet sabotage in icmpv6 type echo-request drop")
	return err
}

// unsabotage ends it, everywhere: after the test too, whose context has ended then.
func (k *kitchen) unsabotage() error {
	for _, n := range k.nodes {
		if _, err := node.Run(context.WithoutCancel(k.t.Context()), n, "nft", "add table inet sabotage; delete table inet sabotage"); err != nil {
			return err
		}
	}
	return nil
}
