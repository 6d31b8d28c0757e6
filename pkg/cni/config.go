package cni

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// maxName bounds names that come from outside: longer ones are refused, not cut.
const maxName = 253

// maxIfName is the kernel's IFNAMSIZ without the terminating zero.
const maxIfName = 15

// Request is one call, parsed and validated.
type Request struct {
	Command     string
	ContainerID string
	Netns       string // a path; may be empty in DEL
	IfName      string
	Args        Args
	Config      NetConf
	raw         []byte // Config as it was given
	live        bool   // no call of a runtime's: made while the pod runs
}

// Args are the CNI_ARGS that a Kubernetes runtime sends; unknown ones are ignored.
type Args struct {
	Namespace string // K8S_POD_NAMESPACE
	Name      string // K8S_POD_NAME
	UID       string // K8S_POD_UID; for a static pod the kubelet's hash; may be empty
	InfraID   string // K8S_POD_INFRA_CONTAINER_ID
	MAC       string // MAC: of interfaces of type sriov
}

// native reports whether the call is for every network of the pod (decision 35).
func (r *Request) native() bool {
	return r.Config.MultiNetwork == Native && r.Config.Definition == ""
}

// NetConf is what is read of the network configuration on stdin.
type NetConf struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	// MultiNetwork "native" asks for every network that the pod names; without it
	// only this configuration's own network is attached (decision 35).
	MultiNetwork string `json:"multiNetwork"`
	// Definition "namespace/name" that this is the configuration of, and the Topology that
	// it asks for; both empty: the default network's.
	Definition string `json:"netAttachDefName"`
	Topology   string `json:"topology"`
	// DeviceID is the function that the interface is to have; Runtime's, which a runtime adds
	// for plugins that declare the capability, comes before it.
	DeviceID string        `json:"deviceID"`
	Runtime  RuntimeConfig `json:"runtimeConfig"`
	// ValidAttachments is what GC keeps. Nil: the key was absent, which is not the
	// same as none being valid; runtimes write that as [] or as null.
	ValidAttachments []ValidAttachment `json:"-"`
}

// RuntimeConfig is what is read of a configuration's runtimeConfig.
type RuntimeConfig struct {
	DeviceID string `json:"deviceID"`
	InfoFile string `json:"CNIDeviceInfoFile"` // for the device's information; "": nobody wants it
}

// device that the caller names; "": none.
func (c NetConf) device() string { return cmp.Or(c.Runtime.DeviceID, c.DeviceID) }

// ValidAttachment names an attachment that a GC call keeps.
type ValidAttachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// ParseRequest validates a call. Its error is a *wire.Error.
func ParseRequest(c *wire.Call) (*Request, error) {
	r := &Request{Command: c.Command, raw: c.Config}
	var err error
	if r.Config, err = ParseConfig(c.Config); err != nil {
		return nil, err
	}
	switch c.Command {
	case wire.Status:
		return r, nil
	case wire.GC:
		if r.Config.ValidAttachments == nil {
			return nil, wire.Errorf(wire.CodeConfig, "GC without cni.dev/valid-attachments: nothing is removed")
		}
		return r, nil
	case wire.Add, wire.Check:
		if c.Netns == "" {
			return nil, wire.Errorf(wire.CodeEnvironment, "CNI_NETNS is not set")
		}
	case wire.Del:
	default:
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_COMMAND %q is not known", c.Command)
	}
	if err := checkContainer(c.ContainerID, c.IfName); err != nil {
		return nil, err
	}
	if strings.ContainsRune(c.Netns, 0) || c.Netns != "" && !strings.HasPrefix(c.Netns, "/") {
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_NETNS %q is not an absolute path", c.Netns)
	}
	r.ContainerID, r.Netns, r.IfName = c.ContainerID, c.Netns, c.IfName
	if r.Args, err = ParseArgs(c.Args); err != nil {
		return nil, err
	}
	if c.Command == wire.Add && (r.Args.Namespace == "" || r.Args.Name == "") {
		return nil, wire.Errorf(wire.CodeEnvironment, "CNI_ARGS names no pod: K8S_POD_NAMESPACE and K8S_POD_NAME are needed")
	}
	return r, nil
}

// ParseConfig reads the configuration on stdin.
func ParseConfig(b []byte) (NetConf, error) {
	var c NetConf
	var gc struct {
		Valid json.RawMessage `json:"cni.dev/valid-attachments"`
	}
	if err := errors.Join(json.Unmarshal(b, &c), json.Unmarshal(b, &gc)); err != nil {
		return c, wire.Errorf(wire.CodeDecode, "network configuration: %v", err)
	}
	if gc.Valid != nil {
		if err := json.Unmarshal(gc.Valid, &c.ValidAttachments); err != nil {
			return c, wire.Errorf(wire.CodeDecode, "cni.dev/valid-attachments: %v", err)
		}
		if c.ValidAttachments == nil {
			c.ValidAttachments = []ValidAttachment{}
		}
	}
	if err := c.checkDefinition(); err != nil {
		return c, err
	}
	if c.CNIVersion == "" {
		c.CNIVersion = DefaultVersion
	}
	if !wire.Supported(c.CNIVersion) {
		return c, wire.Errorf(wire.CodeVersion, "CNI version %q is not supported: use one of %v", c.CNIVersion, wire.Versions())
	}
	for _, v := range c.ValidAttachments {
		if v.ContainerID == "" {
			return c, wire.Errorf(wire.CodeConfig, "cni.dev/valid-attachments has an entry without containerID")
		}
	}
	return c, nil
}

// checkDefinition refuses a configuration of a network that does not say whose it is.
func (c NetConf) checkDefinition() error {
	if c.Definition == "" && c.Topology == "" {
		return nil
	}
	namespace, name, ok := strings.Cut(c.Definition, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") || checkWord(namespace) != nil || checkWord(name) != nil {
		return wire.Errorf(wire.CodeConfig, "netAttachDefName of network %q is %q: it must be the definition's own namespace/name", c.Name, c.Definition)
	}
	return nil
}

// ParseArgs reads CNI_ARGS: "K=V;K=V".
func ParseArgs(s string) (Args, error) {
	var a Args
	for pair := range strings.SplitSeq(s, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			if strings.TrimSpace(pair) == "" {
				continue
			}
			return a, wire.Errorf(wire.CodeEnvironment, "CNI_ARGS: %q is no KEY=VALUE", pair)
		}
		var field *string
		switch key {
		case "K8S_POD_NAMESPACE":
			field = &a.Namespace
		case "K8S_POD_NAME":
			field = &a.Name
		case "K8S_POD_UID":
			field = &a.UID
		case "K8S_POD_INFRA_CONTAINER_ID":
			field = &a.InfraID
		case "MAC":
			field = &a.MAC
		default:
			continue
		}
		if err := checkWord(value); err != nil {
			return a, wire.Errorf(wire.CodeEnvironment, "CNI_ARGS: %s: %v", key, err)
		}
		*field = value
	}
	return a, nil
}

func checkContainer(id, ifName string) error {
	if err := checkWord(id); err != nil || id == "" {
		return wire.Errorf(wire.CodeEnvironment, "CNI_CONTAINERID %.64q is not an id", id)
	}
	if ifName == "" || len(ifName) > maxIfName || ifName == "." || ifName == ".." || strings.ContainsAny(ifName, "/: \t\n\x00") {
		return wire.Errorf(wire.CodeEnvironment, "CNI_IFNAME %.64q is not an interface name", ifName)
	}
	return nil
}

// checkWord accepts what Kubernetes names, UIDs and container ids are made of:
// these values become parts of OVSDB strings and device aliases.
func checkWord(s string) error {
	if len(s) > maxName {
		return fmt.Errorf("%.32q… is longer than %d bytes", s, maxName)
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_', r == ':':
		default:
			return fmt.Errorf("%.64q has a character that no name has", s)
		}
	}
	return nil
}
