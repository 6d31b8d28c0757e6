package state

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// volatile are columns that differ from start to start, or count, or measure, of
// tables by "DB Table"; "*" stands for the whole table.
func volatile() map[string][]string {
	return map[string][]string{
		"NB NB_Global":                  {"nb_cfg", "nb_cfg_timestamp", "sb_cfg", "sb_cfg_timestamp", "hv_cfg", "hv_cfg_timestamp", "connections", "ssl"},
		"NB Connection":                 {"status", "is_connected"},
		"SB SB_Global":                  {"nb_cfg", "connections", "ssl"},
		"SB Chassis":                    {"nb_cfg"},
		"SB Chassis_Private":            {"nb_cfg", "nb_cfg_timestamp"},
		"SB Connection":                 {"status", "is_connected"},
		"SB Datapath_Binding":           {"tunnel_key"}, // those that are asked for stand in NB
		"SB Port_Binding":               {"tunnel_key"},
		"SB Multicast_Group":            {"tunnel_key"},
		"SB Logical_Flow":               {"flow_desc"},
		"SB MAC_Binding":                {"*"}, // learned from traffic, and forgotten
		"SB FDB":                        {"*"},
		"SB IGMP_Group":                 {"*"},
		"SB Controller_Event":           {"*"},
		"SB ECMP_Nexthop":               {"*"},
		"SB Learned_Route":              {"*"},
		"OVS Open_vSwitch":              {"cur_cfg", "next_cfg", "statistics", "datapaths", "manager_options", "ssl"},
		"OVS Bridge":                    {"status", "rstp_status", "datapath_id"},
		"OVS Port":                      {"statistics", "status", "rstp_status", "rstp_statistics", "bond_active_slave"},
		"OVS Interface":                 {"statistics", "status", "ofport", "ifindex", "link_resets", "link_speed", "mac_in_use", "duplex", "lacp_current"},
		"OVS Datapath":                  {"*"}, // what vswitchd found out of its kernel
		"OVS Controller":                {"status", "is_connected", "role"},
		"OVS Manager":                   {"status", "is_connected"},
		"OVS Flow_Sample_Collector_Set": {"*"},
	}
}

// volatileKeys are keys of map columns of the same kind, by "DB Table.column": the
// key goes, or with a "=" at its end only its value. A trailing "*" is a prefix.
func volatileKeys() map[string][]string {
	return map[string][]string{
		"NB NB_Global.options":         {"mac_prefix", "svc_monitor_mac", "max_tunid"},
		"SB SB_Global.options":         {"mac_prefix", "svc_monitor_mac", "max_tunid"},
		"SB Logical_Flow.external_ids": {"stage-hint", "source"}, // source: the line of northd that came first
		"SB Port_Binding.external_ids": {"nb_seqno"},
		// ovn-controller that is killed as a port goes may leave the port's zone behind: its memory, not ours.
		"OVS Bridge.external_ids":       {"ct-zone-*", "ovn-startup-ts", "ovn-nb-cfg", "ovn-nb-cfg-ts"},
		"OVS Interface.external_ids":    {"ovn-installed-ts", "portolan/generation"},
		"OVS Open_vSwitch.external_ids": {"ovn-nb-cfg", "ovn-nb-cfg-ts", "ovn-ofctrl-wait-before-clear="}, // measured
	}
}

// singletons are the tables of one row.
var singletons = map[string]bool{"NB_Global": true, "SB_Global": true, "Open_vSwitch": true}

// renderer gives the rows of one database names and fields.
type renderer struct {
	db   string // "NB", "SB", "OVS"
	all  tables
	drop map[string][]string
	keys map[string][]string
}

// render files every row of a database.
func (s State) render(db string, all tables) {
	r := renderer{db: db, all: all, drop: volatile(), keys: volatileKeys()}
	for table, rows := range all {
		if slices.Contains(r.drop[db+" "+table], "*") {
			continue
		}
		type named struct {
			name   string
			fields map[string]string
		}
		var list []named
		for id, row := range rows {
			n := named{r.name(table, id, 0), r.fields(table, row, 0)}
			if n.name == "svc_monitor_mac" { // a MAC that northd makes up for each new database
				delete(n.fields, "addresses")
			}
			list = append(list, n)
		}
		// Rows of one name are numbered in the order of their content.
		slices.SortFunc(list, func(a, b named) int {
			return strings.Compare(a.name+fmt.Sprint(a.fields), b.name+fmt.Sprint(b.fields))
		})
		for _, n := range list {
			s.add(db+" "+table, n.name, n.fields)
		}
	}
}

// deepest is how far references are followed to tell what a nameless row is.
const deepest = 4

// name calls a row by what people call it, or by a hash of its content.
func (r renderer) name(table, id string, depth int) string {
	row, ok := r.all[table][id]
	if !ok {
		return "gone"
	}
	if singletons[table] {
		return "."
	}
	if table == "Logical_Flow" {
		where := r.text(table, "logical_datapath", row["logical_datapath"], depth+1) + r.text(table, "logical_dp_group", row["logical_dp_group"], depth+1)
		return fmt.Sprintf("%s %s %v %v %v", where, row["pipeline"], row["table_id"], row["priority"], row["match"])
	}
	for _, column := range []string{"name", "logical_port", "chassis_name", "hostname"} {
		if s, ok := row[column].(string); ok && s != "" {
			return s
		}
	}
	if ids, ok := row["external_ids"].(dict); ok {
		for _, key := range []string{"portolan/id", "name2", "name", "logical-switch", "logical-router"} {
			for _, kv := range ids {
				if kv[0] == key && kv[1] != "" {
					return fmt.Sprint(kv[1])
				}
			}
		}
	}
	if depth >= deepest {
		return "…"
	}
	sum := sha256.Sum256([]byte(strings.Join(list(r.fields(table, row, depth+1)), "\n")))
	return hex.EncodeToString(sum[:4])
}

// fields are a row's columns as text, without what is volatile or at its default.
func (r renderer) fields(table string, row record, depth int) map[string]string {
	out := map[string]string{}
	for column, v := range row {
		if slices.Contains(r.drop[r.db+" "+table], column) {
			continue
		}
		if text := r.text(table, column, v, depth); text != "" {
			out[column] = text
		}
	}
	return out
}

// text is a value; "" for what a column holds that nobody has set.
func (r renderer) text(table, column string, v any, depth int) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		if !v {
			return ""
		}
		return "true"
	case float64:
		if v == 0 {
			return ""
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	case uuid:
		return r.reference(string(v), depth)
	case set:
		var parts []string
		for _, e := range v {
			parts = append(parts, r.text(table, column, e, depth))
		}
		slices.Sort(parts)
		return strings.Join(parts, ", ")
	case dict:
		var parts []string
		for _, kv := range v {
			key := r.text(table, column, kv[0], depth)
			switch r.judge(table, column, key) {
			case dropped:
			case valueless:
				parts = append(parts, key)
			default:
				parts = append(parts, key+"="+r.text(table, column, kv[1], depth))
			}
		}
		slices.Sort(parts)
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(v)
}

// arrow begins a reference to another row.
const arrow = "→"

// reference names the row that a UUID means, wherever in the database it is.
func (r renderer) reference(id string, depth int) string {
	if r.all == nil {
		return arrow + id // a watcher has not read the rows
	}
	for table, rows := range r.all {
		if _, ok := rows[id]; ok {
			return arrow + r.name(table, id, depth+1)
		}
	}
	return arrow + "nothing"
}

type judgement int

const (
	kept judgement = iota
	valueless
	dropped
)

// judge tells what of a map's entry is compared.
func (r renderer) judge(table, column, key string) judgement {
	for _, pattern := range r.keys[r.db+" "+table+"."+column] {
		pattern, bare := strings.CutSuffix(pattern, "=")
		prefix, open := strings.CutSuffix(pattern, "*")
		if key != pattern && !(open && strings.HasPrefix(key, prefix)) {
			continue
		}
		if bare {
			return valueless
		}
		return dropped
	}
	return kept
}
