package sriovtest

import (
	"net"

	"github.com/portolan-cni/portolan/sriov"
)

// Stepped calls After after each change that a kernel has made.
type Stepped struct {
	sriov.Kernel
	After func(op string)
}

func (s Stepped) done(op string, err error) error {
	if err == nil {
		s.After(op)
	}
	return err
}

// Temporary implements sriov.Kernel.
func (s Stepped) Temporary() (sriov.Namespace, error) {
	ns, err := s.Kernel.Temporary()
	return ns, s.done("Temporary", err)
}

// SetUp implements sriov.Kernel.
func (s Stepped) SetUp(ns sriov.Namespace, index int, up bool) error {
	return s.done("SetUp", s.Kernel.SetUp(ns, index, up))
}

// AddAltName implements sriov.Kernel.
func (s Stepped) AddAltName(ns sriov.Namespace, index int, name string) error {
	return s.done("AddAltName", s.Kernel.AddAltName(ns, index, name))
}

// DelAltName implements sriov.Kernel.
func (s Stepped) DelAltName(ns sriov.Namespace, index int, name string) error {
	return s.done("DelAltName", s.Kernel.DelAltName(ns, index, name))
}

// Set implements sriov.Kernel.
func (s Stepped) Set(ns sriov.Namespace, index int, c sriov.Change) error {
	return s.done("Set", s.Kernel.Set(ns, index, c))
}

// Move implements sriov.Kernel.
func (s Stepped) Move(from sriov.Namespace, index int, to sriov.Namespace, c sriov.Change) error {
	return s.done("Move", s.Kernel.Move(from, index, to, c))
}

// Mute implements sriov.Kernel.
func (s Stepped) Mute(name string) error { return s.done("Mute", s.Kernel.Mute(name)) }

// SetVF implements sriov.Kernel.
func (s Stepped) SetVF(pf string, index int, a sriov.Attribute, v sriov.VFState) error {
	return s.done("SetVF", s.Kernel.SetVF(pf, index, a, v))
}

// SetFunctionMAC implements sriov.Kernel.
func (s Stepped) SetFunctionMAC(p sriov.Port, mac net.HardwareAddr) error {
	return s.done("SetFunctionMAC", s.Kernel.SetFunctionMAC(p, mac))
}

// MoveRDMA implements sriov.Kernel.
func (s Stepped) MoveRDMA(from sriov.Namespace, name string, to sriov.Namespace) error {
	return s.done("MoveRDMA", s.Kernel.MoveRDMA(from, name, to))
}

// MakeSoft implements sriov.Kernel.
func (s Stepped) MakeSoft(netdev, representor string, o sriov.SoftOptions) error {
	return s.done("MakeSoft", s.Kernel.MakeSoft(netdev, representor, o))
}
