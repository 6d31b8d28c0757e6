// Package multus answers: what does a pod ask for by its annotations and the
// NetworkAttachmentDefinitions they name, and how is the result told? It reads what
// users write, by the multi-network specification v1.3 and the CNI specification
// 1.1, and does no I/O: the same text gives the same answer anywhere, so the
// manager, the node agent and an admission check judge alike.
//
//	NAD spec.config ──ParseDefinition──> Definition ──> Config, where the network is ours
//	pod annotations ──ParseNetworks────> Selection
//	Selection + Definition ──NewPlan───> Attachment: what each plugin is given
//	CNI results ──StatusOf, FormatStatus──> annotation k8s.v1.cni.cncf.io/network-status
//
// What is wrong with one value is a *FieldError: the object, the field, what was
// found, what to do. Section numbers are those of the multi-network specification's
// version 1 text, which 1.3 extends.
package multus
