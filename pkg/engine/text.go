package engine

import (
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// String is the operation's text: what it does and the row or edge it does it
// to, on one line, or for an Insert and an Update with a line for each column.
func (o Op) String() string {
	text := o.Kind.String() + " "
	switch o.Kind {
	case Add, Remove:
		return text + strings.TrimPrefix(rows.FormatEdge(o.Edge), "edge ")
	case Delete:
		text += rows.FormatRef(o.Row.Ref)
		if !o.Row.Parent.Row.IsZero() {
			text += "  parent " + rows.FormatRef(o.Row.Parent.Row) + "." + o.Row.Parent.Column
		}
		if o.UUID != "" {
			text += "  of another uuid"
		}
		return text
	}
	return text + strings.TrimSuffix(rows.FormatRow(o.Row), "\n")
}

// String is the transaction's text: its groups in order, each with its operations.
func (t Txn) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "transaction in %s\n", t.DB)
	for _, g := range t.Groups {
		fmt.Fprintf(&b, "  group %s\n", g.Group)
		for _, op := range g.Ops {
			fmt.Fprintf(&b, "    %s\n", strings.ReplaceAll(op.String(), "\n", "\n    "))
		}
	}
	return b.String()
}
