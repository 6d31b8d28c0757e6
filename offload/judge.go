package offload

import "slices"

// judge says of every flow of a table that is not in hardware why. What holds for the
// node goes before what holds for the port, that before what the flow itself says:
// while offload is off it is no help that a flow could not be offloaded.
func (t *table) judge(x *facts) {
	node := x.node()
	ports := map[string][]Reason{}
	for _, e := range t.entries {
		if e.place == Hardware {
			continue
		}
		if len(node) > 0 {
			e.why = node
			continue
		}
		in, ok := ports[e.in]
		if !ok {
			in = x.port(e.in)
			ports[e.in] = in
		}
		if len(in) > 0 {
			e.why = in
			if e.place == Kernel && x.kind != DatapathUserspace {
				// No NIC is behind it; that it is not even in TC has reasons of its own.
				e.why = append(slices.Clone(in), t.notInTC(x, e)...)
			}
			continue
		}
		e.why = t.flow(x, e)
	}
}

// read notes what a flow's text says against it.
func (e *entry) read(f *Flow, a *act, kind string) {
	e.ct, e.partial, e.tunnel = a.ct, f.Degree == Partial, a.tunnel
	if kind == DatapathUserspace {
		e.blocked = f.does(a)
		return
	}
	e.blocked, e.tracked = f.text(a), connections(f, a)
}

// flow judges one flow of a port that could have it in hardware.
func (t *table) flow(x *facts, e *entry) []Reason {
	if x.kind == DatapathUserspace {
		return userspaceFlow(e)
	}
	out := append(t.notInTC(x, e), x.egress(e)...)
	if len(out) == 0 {
		out = e.tracked
	}
	switch {
	case len(out) > 0:
		return out
	case e.fresh:
		return []Reason{{Code: TooYoung}}
	case e.place == TC:
		return []Reason{{Code: DriverRefused}}
	}
	return []Reason{{Code: TCRefused}}
}

// notInTC are what of a flow's text, and of its stages, keeps it out of TC; of one that
// is in TC, what of it NICs cannot do.
func (t *table) notInTC(x *facts, e *entry) []Reason {
	if len(e.blocked) > 0 || e.place != Kernel {
		return slices.Clone(e.blocked)
	}
	return t.stages(x, e)
}

// userspaceFlow judges a flow of vswitchd's own datapath, which a NIC may have by rte_flow.
func userspaceFlow(e *entry) []Reason {
	switch {
	case e.partial:
		return []Reason{{Code: PartialOnly}}
	case len(e.blocked) > 0:
		return e.blocked
	case e.fresh:
		return []Reason{{Code: TooYoung}}
	}
	return []Reason{{Code: DriverRefused}}
}

// stages judges what a flow of several stages needs to be in TC.
func (t *table) stages(x *facts, e *entry) []Reason {
	if e.recirc == 0 && len(e.recircs) == 0 {
		return nil
	}
	switch {
	case x.kernel.RecircSharing.missing():
		return []Reason{{NoRecircSharing, x.kernel.Release}}
	case e.ct && x.kernel.ConntrackAction.missing():
		return []Reason{{NoCTAction, x.kernel.Release}}
	case t.earlier(e):
		return []Reason{{Code: EarlierStage}}
	}
	return nil
}

// egress judges where a flow's packets leave.
func (x *facts) egress(e *entry) []Reason {
	var out []Reason
	in := x.device(e.in)
	for _, port := range e.outputs {
		d := x.device(port)
		switch d.Kind {
		case Veth, Other:
			out = append(out, Reason{EgressVeth, port})
		case Internal:
			out = append(out, Reason{EgressInternal, port})
		case Missing, Physical, Function:
			out = append(out, Reason{EgressNoDevice, port})
		case Tunnel:
			to := ""
			if e.tunnel.IsValid() {
				to = e.tunnel.String()
			}
			under := x.under(to)
			out = append(out, x.tunnel(under)...)
			if in.hardware() && under.hardware() && in.SwitchID != under.SwitchID {
				out = append(out, Reason{TunnelUnderlay, under.Name})
			}
		default:
			if in.hardware() && in.SwitchID != d.SwitchID {
				out = append(out, Reason{EgressOtherSwitch, port})
			}
		}
	}
	return out[:min(len(out), most)]
}

// connections judges a flow that could be in hardware by its connection.
func connections(f *Flow, a *act) []Reason {
	state, tracked := f.tracked(a)
	if !tracked {
		return nil
	}
	if f.isICMP() {
		return []Reason{{Code: ICMPConntrack}}
	}
	if n := f.protocol(); n != 0 && n != 6 && n != 17 {
		return []Reason{{Code: CTProtocol}}
	}
	if a.commit || state.is(ctNew) {
		return []Reason{{Code: ConnectionNew}}
	}
	return nil
}
