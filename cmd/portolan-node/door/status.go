package door

import (
	"log/slog"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// Status writes the network-status of a pod whose networks were attached all in one
// call. Where Multus is the caller it is Multus that writes it.
func (d *Door) Status(p cni.Pod, all []cni.Attachment) {
	if d.cfg.Annotator == nil || len(all) == 0 {
		return
	}
	list := make([]multus.Status, len(all))
	for i, a := range all {
		list[i] = statusOf(a)
	}
	text, err := multus.FormatStatus(list[0], list[1:])
	if err != nil {
		d.log.Error("network-status", slog.String("pod", p.String()), slog.Any("err", err))
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if seen := d.seen[p.String()]; seen != nil && seen.UID == p.UID && (seen.Noted().Status == text || seen.Noted().Status == "" && p.Selection == "" && p.Instead == "") {
		return // as it stands; of a pod that asks for nothing nothing is told
	}
	d.cfg.Annotator.Annotate(kube.PodTarget(p.Namespace, p.Name, p.UID), map[string]string{multus.StatusAnnotation: text})
}

// statusOf is what the last plugin says, and that it is this interface where it says
// nothing of one.
func statusOf(a cni.Attachment) multus.Status {
	s := multus.StatusOf(a.Definition(), a.Result, a.Device)
	if s.Interface == "" {
		s.Interface = a.IfName
	}
	return s
}
