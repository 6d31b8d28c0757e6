package multus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
)

// The annotations of a pod that are read.
const (
	// NetworksAnnotation names the networks a pod joins besides the default one.
	NetworksAnnotation = "k8s.v1.cni.cncf.io/networks"
	// DefaultNetworkAnnotation names a definition to have instead of the cluster's
	// default network (Multus' own; the specification has none).
	DefaultNetworkAnnotation = "v1.multus-cni.io/default-network"
)

// maxInterfaceName is the kernel's IFNAMSIZ without the closing zero.
const maxInterfaceName = 15

// Selection is one attachment that a pod asks for (specification v1, section 4.1,
// and the keys that v1.1 to v1.3 added). Zero is not asked for.
type Selection struct {
	Namespace string
	Name      string
	Interface string // never empty: net1, net2 … by position where the pod names none

	IPs            []string // as written: an address, with or without a prefix
	MAC            string   // six bytes, lower case with colons
	InfinibandGUID string   // eight bytes, as MAC
	PortMappings   []PortMapping
	Bandwidth      *Bandwidth
	CNIArgs        map[string]json.RawMessage // for the plugins' args.cni; over the definition's own
	DeviceID       string                     // Multus' own key
	DefaultRoute   bool                       // the pod's default route goes here …
	Gateways       []netip.Addr               // … by these; none: by the configuration's own
	Claim          string                     // ipam-claim-reference: an IPAMClaim of the pod's namespace
}

// Key is the definition's "namespace/name".
func (s Selection) Key() string { return s.Namespace + "/" + s.Name }

// PortMapping is one of a selection's portMappings, with the keys of CNI's
// portmap plugin.
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"` // "tcp", "udp" or "sctp"
	HostIP        string `json:"hostIP,omitempty"`
}

// Bandwidth is a selection's limits, in bits a second and bits; 0: none.
type Bandwidth struct {
	IngressRate  int64 `json:"ingressRate,omitempty"`
	IngressBurst int64 `json:"ingressBurst,omitempty"`
	EgressRate   int64 `json:"egressRate,omitempty"`
	EgressBurst  int64 `json:"egressBurst,omitempty"`
}

var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

// selectionFields are the specification's keys, and Multus' deviceID.
var selectionFields = []string{"name", "namespace", "interface", "ips", "mac", "infiniband-guid", "portMappings", "bandwidth",
	"default-route", "cni-args", "ipam-claim-reference", "deviceID"}

// ParseNetworks reads the networks annotation in either form: the comma list
// "[namespace/]name[@interface]" or a JSON list. A definition without a namespace is
// in podNamespace. One wrong value makes the whole annotation wrong, so there is
// either every Selection, in the order written, or a *FieldError that names entry
// and field. An empty annotation asks for nothing. A key that is not known is
// refused unless it has a dot, as the specification keeps those for others
// (section 4.1.2.1). Of one interface name given twice the plan says so.
func ParseNetworks(annotation, podNamespace string) ([]Selection, error) {
	return parseSelections(NetworksAnnotation, annotation, podNamespace)
}

// ParseDefaultNetwork reads the default-network annotation: one entry, in either
// form. A definition without a namespace is in namespace: for Multus that is its
// own, not the pod's. Nil: the annotation is empty.
func ParseDefaultNetwork(annotation, namespace string) (*Selection, error) {
	list, err := parseSelections(DefaultNetworkAnnotation, annotation, namespace)
	switch {
	case err != nil || len(list) == 0:
		return nil, err
	case len(list) > 1:
		return nil, &FieldError{"annotation " + DefaultNetworkAnnotation, "", fmt.Sprintf("%d networks", len(list)), "name one: a pod has one default network"}
	}
	return &list[0], nil
}

func parseSelections(annotation, value, namespace string) ([]Selection, error) {
	text := strings.TrimSpace(value)
	if text == "" {
		return nil, nil
	}
	entries, err := split(annotation, text)
	if err != nil {
		return nil, err
	}
	out := make([]Selection, 0, len(entries))
	routed := -1
	for i, o := range entries {
		s := Selection{Namespace: namespace, Interface: fmt.Sprintf("net%d", i+1)}
		if err := o.readSelection(&s); err != nil {
			return nil, err
		}
		if s.DefaultRoute {
			if routed >= 0 {
				return nil, o.wrong("default-route", string(truncated(o.fields["default-route"])),
					fmt.Sprintf("remove it: entry %d has it, and a pod has one default route", routed))
			}
			routed = i
		}
		out = append(out, s)
	}
	return out, nil
}

// split makes objects of both forms.
func split(annotation, text string) ([]*object, error) {
	if text[0] == '[' || text[0] == '{' {
		return splitJSON(annotation, text)
	}
	var list []*object
	for part := range strings.SplitSeq(text, ",") {
		o := &object{fmt.Sprintf("annotation %s, entry %d", annotation, len(list)), map[string]json.RawMessage{}}
		rest, iface, named := strings.Cut(strings.TrimSpace(part), "@")
		if named {
			if iface == "" {
				return nil, o.wrong("interface", quoted(part), "write a name after @, or leave @ out")
			}
			o.set("interface", iface)
		}
		if ns, name, ok := strings.Cut(rest, "/"); ok {
			if ns == "" {
				return nil, o.wrong("namespace", quoted(part), "write a namespace before /, or leave / out")
			}
			o.set("namespace", ns)
			rest = name
		}
		o.set("name", rest)
		list = append(list, o)
	}
	return list, nil
}

// set puts a string in.
func (o *object) set(field, text string) {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string is always JSON
	}
	o.fields[field] = raw
}

func splitJSON(annotation, text string) ([]*object, error) {
	name := "annotation " + annotation
	dec := json.NewDecoder(strings.NewReader(text))
	var raw []json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return nil, &FieldError{name, "", fmt.Sprintf("%s is no JSON list (%v)", quoted(text), err), `write [{"name":…},…], or names with commas between`}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &FieldError{name, "", "there is text after the JSON list", "remove it"}
	}
	list := make([]*object, 0, len(raw))
	for i, entry := range raw {
		o, err := readObject(fmt.Sprintf("%s, entry %d", name, i), entry)
		if err != nil {
			return nil, err
		}
		if err := o.only(selectionFields); err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

func (o *object) readSelection(s *Selection) error {
	for _, read := range []func(*Selection) error{
		o.readDefinition, o.readInterface, o.readIPs, o.readHardware, o.readPorts, o.readBandwidth, o.readRoute, o.readRest,
	} {
		if err := read(s); err != nil {
			return err
		}
	}
	return nil
}

func (o *object) readDefinition(s *Selection) error {
	namespace := ""
	if err := errors.Join(o.into("namespace", "a namespace", &namespace), o.into("name", "a definition's name", &s.Name)); err != nil {
		return err
	}
	if namespace != "" {
		s.Namespace = namespace
	}
	if !label.MatchString(s.Namespace) {
		return o.wrong("namespace", quoted(s.Namespace), "write a namespace: up to 63 small letters, digits and '-'")
	}
	if len(s.Name) > 253 || !subdomain.MatchString(s.Name) {
		return o.wrong("name", quoted(s.Name), "write the name of a NetworkAttachmentDefinition")
	}
	return nil
}

func (o *object) readInterface(s *Selection) error {
	name := ""
	if err := o.into("interface", "an interface's name", &name); err != nil {
		return err
	}
	if name == "" {
		return nil
	}
	if !interfaceName(name) {
		return o.wrong("interface", quoted(name), "write 1 to 15 visible ASCII characters without / and :")
	}
	s.Interface = name
	return nil
}

func interfaceName(name string) bool {
	if name == "" || len(name) > maxInterfaceName || name == "." || name == ".." {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' })
}
