package sriov

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"strings"
)

// Settings are what a PF is told of a VF in legacy mode, by the fields of sriov-cni.
// What is not set stays as it is.
type Settings struct {
	VLAN      *int   `json:"vlan,omitempty"`      // 0 to 4094; 0: none
	VLANQoS   *int   `json:"vlanQoS,omitempty"`   // 0 to 7
	VLANProto string `json:"vlanProto,omitempty"` // "802.1q" or "802.1ad"
	MAC       string `json:"mac,omitempty"`
	Spoofchk  string `json:"spoofchk,omitempty"`   // "on" or "off"
	Trust     string `json:"trust,omitempty"`      // "on" or "off"
	LinkState string `json:"link_state,omitempty"` // "auto", "enable" or "disable"
	MinTxRate *int   `json:"min_tx_rate,omitempty"`
	MaxTxRate *int   `json:"max_tx_rate,omitempty"` // Mbit/s; 0: no limit
}

// SettingError is a setting that cannot be.
type SettingError struct{ Field, Found, Do string }

// Error is "field is found; do".
func (e *SettingError) Error() string { return fmt.Sprintf("%s is %s; %s", e.Field, e.Found, e.Do) }

// ParseSettings reads and checks the settings in a network configuration, of which
// other keys are somebody else's.
func ParseSettings(configuration []byte) (Settings, error) {
	var s Settings
	if err := json.Unmarshal(configuration, &s); err != nil {
		return s, &SettingError{"the network configuration", "not of the form of sriov-cni's (" + err.Error() + ")", "correct it"}
	}
	return s, s.Check()
}

// Check refuses values that no NIC takes. Its error is a *SettingError.
func (s Settings) Check() error {
	if err := s.checkTag(); err != nil {
		return err
	}
	if err := s.checkWords(); err != nil {
		return err
	}
	if s.MAC != "" {
		if mac, err := net.ParseMAC(s.MAC); err != nil || !unicast(mac) {
			return &SettingError{"mac", fmt.Sprintf("%.32q", s.MAC), "write the address of one station, such as 02:00:00:00:00:01"}
		}
	}
	return s.checkRates()
}

func (s Settings) checkTag() error {
	vlan := s.VLAN != nil && *s.VLAN != 0
	switch {
	case s.VLAN != nil && (*s.VLAN < 0 || *s.VLAN > 4094):
		return &SettingError{"vlan", fmt.Sprint(*s.VLAN), "write 0 to 4094"}
	case s.VLANQoS != nil && (*s.VLANQoS < 0 || *s.VLANQoS > 7):
		return &SettingError{"vlanQoS", fmt.Sprint(*s.VLANQoS), "write 0 to 7"}
	case s.VLANQoS != nil && *s.VLANQoS != 0 && !vlan:
		return &SettingError{"vlanQoS", fmt.Sprint(*s.VLANQoS), "set vlan too: a priority is a part of its tag"}
	case s.VLANProto != "" && s.protocol() == "":
		return &SettingError{"vlanProto", fmt.Sprintf("%.32q", s.VLANProto), "write 802.1q or 802.1ad"}
	case s.VLANProto != "" && !vlan && s.protocol() != defaultProtocol:
		return &SettingError{"vlanProto", s.VLANProto, "set vlan too: it is the protocol of its tag"}
	}
	return nil
}

func (s Settings) checkWords() error {
	for _, f := range []struct {
		field, found string
		words        []string
	}{
		{"spoofchk", s.Spoofchk, []string{"on", "off"}},
		{"trust", s.Trust, []string{"on", "off"}},
		{"link_state", s.LinkState, []string{"auto", "enable", "disable"}},
	} {
		if f.found != "" && !strings.Contains(" "+strings.Join(f.words, " ")+" ", " "+f.found+" ") {
			return &SettingError{f.field, fmt.Sprintf("%.32q", f.found), "write " + strings.Join(f.words, " or ")}
		}
	}
	return nil
}

func (s Settings) checkRates() error {
	for field, rate := range map[string]*int{"min_tx_rate": s.MinTxRate, "max_tx_rate": s.MaxTxRate} {
		if rate != nil && (*rate < 0 || *rate > math.MaxInt32) {
			return &SettingError{field, fmt.Sprint(*rate), "write Mbit/s from 0 on"}
		}
	}
	if s.MinTxRate != nil && s.MaxTxRate != nil {
		return checkRates(*s.MinTxRate, *s.MaxTxRate)
	}
	return nil
}

func checkRates(low, high int) error {
	if high != 0 && low > high {
		return &SettingError{"min_tx_rate", fmt.Sprint(low), fmt.Sprintf("write at most max_tx_rate, which is %d", high)}
	}
	return nil
}

func unicast(mac net.HardwareAddr) bool {
	return len(mac) == 6 && mac[0]&1 == 0 && mac.String() != noMAC
}

const (
	noMAC           = "00:00:00:00:00:00"
	defaultProtocol = "802.1q"
)

func (s Settings) protocol() string {
	switch p := strings.ToLower(s.VLANProto); p {
	case "802.1q", "802.1ad":
		return p
	}
	return ""
}

// any reports whether something is set but the MAC, which every device has.
func (s Settings) any() bool { s.MAC = ""; return s != Settings{} }

// over is what a VF is to be that is now as v.
func (s Settings) over(v VFState, mac string) (VFState, error) {
	if mac != "" {
		v.MAC = mac
	}
	if s.VLAN != nil {
		v.VLAN, v.QoS, v.Proto = *s.VLAN, 0, defaultProtocol
		if s.VLANProto != "" {
			v.Proto = s.protocol()
		}
	}
	if s.VLANQoS != nil {
		v.QoS = *s.VLANQoS
	}
	if s.Spoofchk != "" {
		v.Spoofchk = s.Spoofchk
	}
	if s.Trust != "" {
		v.Trust = s.Trust
	}
	if s.LinkState != "" {
		v.LinkState = s.LinkState
	}
	// One of the two leaves the other as it is.
	if s.MinTxRate != nil {
		v.MinRate = *s.MinTxRate
	}
	if s.MaxTxRate != nil {
		v.MaxRate = *s.MaxTxRate
	}
	return v, checkRates(v.MinRate, v.MaxRate)
}
