package main

import "maps"

// Reasons that many entries share.
const (
	northd     = "ovn-northd writes it"
	controller = "ovn-controller writes it"
	vswitchd   = "ovs-vswitchd writes it"
	start      = "ovs-ctl writes it when the daemons start"
	cfg        = "the handshake of configuration numbers: the batch's own transaction writes it, no unit"
	mapParent  = "its parent reference is the value of a map, which a rows.Parent cannot name"
)

// leftOut names the tables ("DB:Table") and columns ("DB:Table.column") that no
// unit may give, with the reason. Ephemeral columns are left out without an
// entry here.
func leftOut() map[string]string {
	all := northbound()
	maps.Copy(all, southbound())
	maps.Copy(all, openVSwitch())
	return all
}

func northbound() map[string]string {
	return map[string]string{
		"NB:BFD.status":                            northd,
		"NB:Logical_Router_Port.ipv6_prefix":       northd + " (prefix delegation)",
		"NB:Logical_Router_Port.status":            northd + " (which chassis hosts it)",
		"NB:Logical_Switch_Port.dynamic_addresses": northd,
		"NB:Logical_Switch_Port.tag":               northd + " from tag_request, which is ours to give",
		"NB:Logical_Switch_Port.up":                northd,
		"NB:NB_Global.hv_cfg":                      cfg,
		"NB:NB_Global.hv_cfg_timestamp":            northd,
		"NB:NB_Global.nb_cfg":                      cfg,
		"NB:NB_Global.nb_cfg_timestamp":            northd,
		"NB:NB_Global.sb_cfg":                      northd,
		"NB:NB_Global.sb_cfg_timestamp":            northd,
	}
}

func southbound() map[string]string {
	return map[string]string{
		"SB:ACL_ID":                        northd,
		"SB:Address_Set":                   northd,
		"SB:Advertised_Route":              northd,
		"SB:BFD":                           northd + ", ovn-controller its status",
		"SB:Chassis.nb_cfg":                controller,
		"SB:Chassis.vtep_logical_switches": "ovn-controller-vtep writes it",
		"SB:Chassis_Private":               controller,
		"SB:Chassis_Template_Var":          northd,
		"SB:Controller_Event":              controller,
		"SB:DHCP_Options":                  northd,
		"SB:DHCPv6_Options":                northd,
		"SB:DNS":                           northd,
		"SB:Datapath_Binding":              northd,
		"SB:ECMP_Nexthop":                  northd,
		"SB:FDB":                           controller,
		"SB:Gateway_Chassis":               northd,
		"SB:HA_Chassis":                    northd,
		"SB:HA_Chassis_Group":              northd,
		"SB:IGMP_Group":                    controller,
		"SB:IP_Multicast":                  northd,
		"SB:Learned_Route":                 controller,
		"SB:Load_Balancer":                 northd,
		"SB:Logical_DP_Group":              northd,
		"SB:Logical_Flow":                  northd,
		"SB:MAC_Binding":                   controller,
		"SB:Meter":                         northd,
		"SB:Meter_Band":                    northd,
		"SB:Mirror":                        northd,
		"SB:Multicast_Group":               northd,
		"SB:Port_Binding":                  northd + ", ovn-controller its chassis and up",
		"SB:Port_Group":                    northd,
		"SB:RBAC_Permission":               northd,
		"SB:RBAC_Role":                     northd,
		"SB:SB_Global.ipsec":               northd,
		"SB:SB_Global.nb_cfg":              northd,
		"SB:SB_Global.options":             northd + ", a copy of NB_Global's",
		"SB:Service_Monitor":               northd + ", ovn-controller its status",
		"SB:Static_MAC_Binding":            northd,
	}
}

func openVSwitch() map[string]string {
	return map[string]string{
		"OVS:AutoAttach":                    "the protocol is obsolete; nothing of ours uses it",
		"OVS:Bridge.auto_attach":            "the protocol is obsolete; nothing of ours uses it",
		"OVS:Bridge.datapath_version":       vswitchd,
		"OVS:Bridge.flow_tables":            mapParent,
		"OVS:CT_Timeout_Policy":             mapParent + " (of the CT_Zone it hangs in)",
		"OVS:CT_Zone":                       mapParent,
		"OVS:Datapath":                      mapParent,
		"OVS:Flow_Table":                    mapParent,
		"OVS:Interface.cfm_flap_count":      vswitchd,
		"OVS:Interface.error":               vswitchd,
		"OVS:Interface.ofport":              vswitchd + " from ofport_request, which is ours to give",
		"OVS:Open_vSwitch.cur_cfg":          vswitchd,
		"OVS:Open_vSwitch.datapath_types":   vswitchd,
		"OVS:Open_vSwitch.datapaths":        mapParent,
		"OVS:Open_vSwitch.db_version":       start,
		"OVS:Open_vSwitch.dpdk_initialized": vswitchd,
		"OVS:Open_vSwitch.dpdk_version":     vswitchd,
		"OVS:Open_vSwitch.iface_types":      vswitchd,
		"OVS:Open_vSwitch.next_cfg":         cfg,
		"OVS:Open_vSwitch.ovs_version":      start,
		"OVS:Open_vSwitch.system_type":      start,
		"OVS:Open_vSwitch.system_version":   start,
		"OVS:Port.bond_active_slave":        vswitchd,
	}
}
