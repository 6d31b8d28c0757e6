package multus

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Difference is a field that two configurations of one network do not agree in.
type Difference struct {
	Field string // as it is written in a configuration
	A, B  string // the values, with defaults applied; "" for none
}

// String is `field is "a" and "b"`.
func (d Difference) String() string { return fmt.Sprintf("%s is %q and %q", d.Field, d.A, d.B) }

// Differences lists, in a fixed order, the fields that two definitions of one
// network must agree in and do not: all that make the network, not netAttachDefName
// nor deviceID, which are an attachment's. Order and writing do not count.
func Differences(a, b *Config) []Difference {
	var out []Difference
	as, bs := a.values(), b.values()
	for i, v := range as {
		if v.value != bs[i].value {
			out = append(out, Difference{v.field, v.value, bs[i].value})
		}
	}
	return out
}

type fieldValue struct{ field, value string }

func (c *Config) values() []fieldValue {
	return []fieldValue{
		{"name", c.Name},
		{"topology", c.Topology},
		{"subnets", joined(c.Subnets)},
		{"excludeSubnets", joined(c.Exclude)},
		{"reservedSubnets", joined(c.Reserved)},
		{"infrastructureSubnets", joined(c.Infrastructure)},
		{"defaultGatewayIPs", joined(c.Gateways)},
		{"joinSubnet", joined(c.Join)},
		{"transitSubnet", joined(c.Transit)},
		{"mtu", number(c.MTU)},
		{"vlanID", number(c.VLAN)},
		{"physicalNetworkName", c.PhysicalNetwork},
		{"allowPersistentIPs", strconv.FormatBool(c.PersistentIPs)},
		{"offload", c.Offload},
		{"ipam", canonical(c.IPAM)},
	}
}

func joined[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, ",")
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// canonical writes JSON with sorted keys and no spaces.
func canonical(raw json.RawMessage) string {
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		return string(raw)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return string(raw)
	}
	return string(b)
}
