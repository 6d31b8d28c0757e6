package ovsdb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"

	"github.com/portolan-cni/portolan/pkg/ovsdb/nb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/sb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/vswitch"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// SchemaError says that a server's schema lacks what we write. It does not go
// away by trying again.
type SchemaError struct {
	Endpoint string
	Database string   // OVSDB name
	Found    string   // the server's schema version
	Wanted   string   // the schema version that we were built for
	Release  string   // the release that brought it
	Missing  []string // `table "T"` or `column "C" of table "T"`, sorted
}

// Error names the first thing missing, how many there are, and what to install.
func (e *SchemaError) Error() string {
	more := ""
	if n := len(e.Missing) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return fmt.Sprintf("%s at %s has no %s%s: its schema is version %s; %s (schema %s) or newer is needed",
		e.Database, e.Endpoint, e.Missing[0], more, e.Found, e.Release, e.Wanted)
}

// Name is a database's OVSDB name.
func Name(db rows.DB) string { return databaseName(db) }

func databaseName(db rows.DB) string {
	switch db {
	case rows.NB:
		return "OVN_Northbound"
	case rows.SB:
		return "OVN_Southbound"
	}
	return "Open_vSwitch"
}

// singleton is the table with exactly one row.
func singleton(db rows.DB) rows.Table {
	switch db {
	case rows.NB:
		return "NB:NB_Global"
	case rows.SB:
		return "SB:SB_Global"
	}
	return "OVS:Open_vSwitch"
}

// checkSchema compares by what is there, not by version numbers: a newer server
// passes, also when its version counts differently.
func checkSchema(db rows.DB, endpoint string, found ovsdb.DatabaseSchema) error {
	var missing []string
	for _, t := range rows.Tables(db) {
		have, ok := found.Tables[t.Name()]
		if !ok {
			missing = append(missing, fmt.Sprintf("table %q", t.Name()))
			continue
		}
		want, _ := rows.SchemaOf(t)
		names := make([]string, 0, len(want.Columns)+2)
		for _, c := range want.Columns {
			names = append(names, c.Name)
		}
		if t == singleton(rows.NB) {
			names = append(names, "nb_cfg", "hv_cfg")
		}
		for _, c := range names {
			if have.Columns[c] == nil {
				missing = append(missing, fmt.Sprintf("column %q of table %q", c, t.Name()))
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.SortFunc(missing, func(a, b string) int { return -strings.Compare(a, b) }) // whole tables first
	e := &SchemaError{Endpoint: endpoint, Database: databaseName(db), Found: found.Version, Missing: missing, Release: "OVN 25.03"}
	switch db {
	case rows.NB:
		e.Wanted = nb.Schema().Version
	case rows.SB:
		e.Wanted = sb.Schema().Version
	default:
		e.Wanted, e.Release = vswitch.Schema().Version, "Open vSwitch 3.5"
	}
	return e
}
