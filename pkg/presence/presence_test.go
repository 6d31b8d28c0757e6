package presence

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// recorder is a sink that writes down what it is told.
type recorder struct{ said []string }

func (r *recorder) Put(o intent.Object) { r.said = append(r.said, "+"+o.Key().String()) }
func (r *recorder) Delete(k intent.Key) { r.said = append(r.said, "-"+k.String()) }

// take returns what was said since the last take.
func (r *recorder) take() []string {
	said := r.said
	r.said = nil
	return said
}

func pod(name, node string, attachments ...string) *intent.Pod {
	p := &intent.Pod{Namespace: "a", Name: name, UID: name, Node: node}
	for _, key := range attachments {
		p.Attachments = append(p.Attachments, intent.Attachment{Network: key, MAC: "0a:58:0a:01:00:05"})
	}
	return p
}

func blue(definitions ...string) *intent.Network {
	return &intent.Network{Name: "blue", ID: 1, Topology: intent.Layer2, Definitions: definitions}
}

func TestPresence(t *testing.T) {
	web := intent.Key{Kind: intent.KindPod, Name: "a/web"}
	for _, test := range []struct {
		name string
		do   func(c *Counter)
		want []string
	}{
		{"before the pod that needs it", func(c *Counter) {
			c.Put(blue("a/blue"))
			c.Put(pod("web", "n1", "default", "a/blue"))
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web"}},
		{"when the network comes after the pod", func(c *Counter) {
			c.Put(pod("web", "n1", "a/blue/1"))
			c.Put(blue("a/blue"))
		}, []string{"+Pod/a/web", "+Presence/n1/blue", "+Network/blue"}},
		{"once for several pods and attachments", func(c *Counter) {
			c.Put(blue("a/blue", "b/blue"))
			c.Put(pod("web", "n1", "a/blue", "a/blue/1", "b/blue"))
			c.Put(pod("db", "n1", "a/blue"))
			c.Put(pod("far", "n2", "a/blue"))
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web", "+Pod/a/db", "+Presence/n2/blue", "+Pod/a/far"}},
		{"lingers 120 s after the last pod", func(c *Counter) {
			c.Put(blue("a/blue"))
			c.Put(pod("web", "n1", "a/blue"))
			c.Delete(web)
			wait(Linger)
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web", "-Pod/a/web", "-Presence/n1/blue"}},
		{"and not less", func(c *Counter) {
			c.Put(blue("a/blue"))
			c.Put(pod("web", "n1", "a/blue"))
			c.Delete(web)
			wait(Linger - time.Millisecond)
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web", "-Pod/a/web"}},
		{"stays when another pod comes in time", func(c *Counter) {
			c.Put(blue("a/blue"))
			c.Put(pod("web", "n1", "a/blue"))
			c.Delete(web)
			wait(Linger - time.Second)
			c.Put(pod("web", "n1", "a/blue"))
			wait(3 * Linger)
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web", "-Pod/a/web", "+Pod/a/web"}},
		{"follows a pod that moves, and detaches", func(c *Counter) {
			c.Put(blue("a/blue"))
			c.Put(pod("web", "n1", "a/blue"))
			c.Put(pod("web", "n2", "a/blue"))
			wait(Linger)
			c.Put(pod("web", "n2"))
			wait(Linger)
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web", "+Presence/n2/blue", "+Pod/a/web", "-Presence/n1/blue", "+Pod/a/web", "-Presence/n2/blue"}},
		{"goes with a definition that is taken back", func(c *Counter) {
			c.Put(blue("a/blue"))
			c.Put(pod("web", "n1", "a/blue"))
			c.Put(blue())
			wait(Linger)
		}, []string{"+Network/blue", "+Presence/n1/blue", "+Pod/a/web", "+Network/blue", "-Presence/n1/blue"}},
		{"as a file states it", func(c *Counter) {
			c.Put(&intent.Presence{Network: "blue", Node: "n1"})
			c.Delete(intent.PresenceKey("blue", "n1"))
			wait(Linger)
		}, []string{"+Presence/n1/blue", "-Presence/n1/blue"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{}
				test.do(New(r))
				if d := cmp.Diff(test.want, r.take()); d != "" {
					t.Errorf("said (-want +got):\n%s", d)
				}
			})
		})
	}
}

// wait lets the bubble's time pass.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestNothingIsLeft: what is counted goes with what was counted.
func TestNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(&recorder{})
		c.Put(blue("a/blue"))
		c.Put(pod("web", "n1", "a/blue"))
		c.Put(pod("web", "n2", "a/blue"))
		c.Delete(intent.Key{Kind: intent.KindPod, Name: "a/web"})
		c.Delete(intent.Key{Kind: intent.KindNetwork, Name: "blue"})
		wait(Linger)
		if n := len(c.pods) + len(c.uses) + len(c.claims) + len(c.networks) + len(c.present); n != 0 {
			t.Errorf("%d entries are left: %+v", n, c)
		}
	})
}
