package kube

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Decode reads Kubernetes YAML: any number of documents, or Lists of them, of the
// kinds Node, Pod, Namespace, NetworkAttachmentDefinition, and of portolan.io Cluster,
// Network, AddressBlock, PhysicalNetwork, DevicePool and Presence. Objects come in the
// order of the text; one that has no intent (a host-networked pod) is left out. A Cluster in the text says whether its nodes share a zone.
func Decode(data []byte) ([]intent.Object, []rows.Problem) {
	return DecodeZoned(data, ZonePerNode)
}

// DecodeZoned is Decode for text that need not hold the Cluster.
func DecodeZoned(data []byte, zoning Zoning) ([]intent.Object, []rows.Problem) {
	d := &decoder{zoning: zoning}
	docs := d.split(data)
	for _, doc := range docs {
		if doc.kind == clusterKind {
			var c v1alpha1.Cluster
			if yaml.Unmarshal(doc.text, &c) == nil && c.Spec.Zone != "" {
				d.zoning = Zoning(c.Spec.Zone)
			}
		}
	}
	for _, doc := range docs {
		d.decode(doc)
	}
	return d.objects, d.problems
}

// DecodePending is DecodeZoned for manifests that are not applied yet: a pod that
// has no node is not left out, and its Node is "".
func DecodePending(data []byte, zoning Zoning) ([]intent.Object, []rows.Problem) {
	d := &decoder{zoning: zoning, pending: true}
	for _, doc := range d.split(data) {
		d.decode(doc)
	}
	return d.objects, d.problems
}

// The kinds that are read, as apiVersion and kind.
const (
	nodeKind      = "v1/Node"
	podKind       = "v1/Pod"
	namespaceKind = "v1/Namespace"
	listKind      = "v1/List"
	clusterKind   = v1alpha1.APIVersion + "/" + v1alpha1.KindCluster
	networkKind   = v1alpha1.APIVersion + "/" + v1alpha1.KindNetwork
	blockKind     = v1alpha1.APIVersion + "/" + v1alpha1.KindAddressBlock
	physicalKind  = v1alpha1.APIVersion + "/" + v1alpha1.KindPhysicalNetwork
	poolKind      = v1alpha1.APIVersion + "/" + v1alpha1.KindDevicePool
	nadKind       = "k8s.cni.cncf.io/v1/NetworkAttachmentDefinition"
	// presenceKind says that a network is used on a node. No API server has it: it is
	// for files that show a network without pods.
	presenceKind = v1alpha1.APIVersion + "/Presence"
)

// document is one object's text, YAML or JSON, with its place for messages.
type document struct {
	kind  string // apiVersion/kind
	place string
	text  []byte
}

type decoder struct {
	zoning   Zoning
	pending  bool // keep pods that have no node yet
	objects  []intent.Object
	problems []rows.Problem
}

func (d *decoder) problem(place string, severity rows.Severity, err error) {
	d.problems = append(d.problems, rows.Problem{Object: place, Severity: severity, Message: err.Error()})
}

// split cuts text into documents and Lists into their items.
func (d *decoder) split(data []byte) (docs []document) {
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		text, err := r.Read()
		if errors.Is(err, io.EOF) {
			return docs
		}
		place := fmt.Sprintf("document %d", n)
		if err != nil {
			d.problem(place, rows.Error, err)
			return docs
		}
		docs = append(docs, d.open(place, text)...)
	}
}

// open reads a document's kind; a document without content is none.
func (d *decoder) open(place string, text []byte) []document {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Items           []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		d.problem(place, rows.Error, err)
		return nil
	}
	kind := head.APIVersion + "/" + head.Kind
	if kind == listKind {
		var docs []document
		for i, item := range head.Items {
			docs = append(docs, d.open(fmt.Sprintf("%s, items[%d]", place, i), item.Raw)...)
		}
		return docs
	}
	if kind == "/" {
		if content, err := yaml.YAMLToJSON(text); err != nil || string(content) != "null" {
			d.problem(place, rows.Error, errors.New("the object has no apiVersion and kind"))
		}
		return nil
	}
	return []document{{kind, place, text}}
}

func (d *decoder) decode(doc document) {
	switch doc.kind {
	case nodeKind:
		var n corev1.Node
		if d.unmarshal(doc, &n, &n.ObjectMeta) {
			o, p := ParseNode(&n, d.zoning)
			d.add(o, p)
		}
	case podKind:
		var pod corev1.Pod
		if d.unmarshal(doc, &pod, &pod.ObjectMeta) {
			if pod.Namespace == "" {
				pod.Namespace = metav1.NamespaceDefault
			}
			d.pod(&pod)
		}
	case namespaceKind:
		var n corev1.Namespace
		if d.unmarshal(doc, &n, &n.ObjectMeta) {
			d.add(ParseNamespace(&n), nil)
		}
	case nadKind:
		var a Attachment
		if d.unmarshal(doc, &a, &a.ObjectMeta) {
			if a.Namespace == "" {
				a.Namespace = metav1.NamespaceDefault
			}
			d.add(ParseDefinition(&a), nil)
		}
	case clusterKind, networkKind, blockKind, physicalKind, poolKind, presenceKind:
		d.decodeOurs(doc)
	default:
		d.problem(doc.place, rows.Warning, fmt.Errorf("%s is not read here and is left out", doc.kind))
	}
}

func (d *decoder) pod(pod *corev1.Pod) {
	nowhere := d.pending && pod.Spec.NodeName == ""
	if nowhere {
		pod.Spec.NodeName = "?"
	}
	o, p := ParsePod(pod)
	if o == nil {
		return
	}
	if nowhere {
		o.Node = ""
	}
	d.add(o, p)
}

// decodeOurs decodes our own kinds, where unknown fields are mistakes.
func (d *decoder) decodeOurs(doc document) {
	switch doc.kind {
	case clusterKind:
		ours(d, doc, ParseCluster)
	case networkKind:
		ours(d, doc, ParseNetwork)
	case blockKind:
		ours(d, doc, ParseBlock)
	case physicalKind:
		ours(d, doc, ParsePhysicalNetwork)
	case poolKind:
		ours(d, doc, ParseDevicePool)
	case presenceKind:
		ours(d, doc, parsePresence)
	}
}

// ours decodes one object and passes it through its parse function.
func ours[K, T any, P interface {
	*T
	intent.Object
}](d *decoder, doc document, parse func(*K) (P, []rows.Problem)) {
	var k K
	if err := suggest(yaml.UnmarshalStrict(doc.text, &k), reflect.TypeFor[K]()); err != nil {
		d.problem(doc.place, rows.Error, err)
		return
	}
	o, p := parse(&k)
	if o == nil {
		d.problems = append(d.problems, p...)
		return
	}
	d.add(o, p)
}

// presence is a Presence as a file has it.
type presence struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Network string `json:"network"`
		Node    string `json:"node"`
	} `json:"spec"`
}

func parsePresence(p *presence) (*intent.Presence, []rows.Problem) {
	return &intent.Presence{Network: p.Spec.Network, Node: p.Spec.Node}, nil
}

// unmarshal decodes an object of Kubernetes; it must have a name. Unknown fields
// are let pass, for the text may come from a newer cluster.
func (d *decoder) unmarshal(doc document, into any, meta *metav1.ObjectMeta) bool {
	err := yaml.Unmarshal(doc.text, into)
	if err == nil && meta.Name == "" {
		err = fmt.Errorf("%s without metadata.name", doc.kind)
	}
	if err != nil {
		d.problem(doc.place, rows.Error, err)
	}
	return err == nil
}

func (d *decoder) add(o intent.Object, p []rows.Problem) {
	d.objects = append(d.objects, o)
	d.problems = append(d.problems, p...)
}
