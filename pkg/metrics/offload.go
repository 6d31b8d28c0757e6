package metrics

import "github.com/prometheus/client_golang/prometheus"

// Offload is where a node's packets are moved. Its names have no process in them:
// portolan_offload_….
type Offload struct {
	flows, interfaces, reasons *prometheus.GaugeVec
	packets, readings          *prometheus.CounterVec
	took                       prometheus.Histogram
	required                   prometheus.Gauge
}

// OffloadReading is what one reading found.
type OffloadReading struct {
	Places       map[string]OffloadPlace // by name: hardware, tc, kernel, userspace
	Verdicts     map[string]int          // interfaces: hardware, partly, software, idle
	Reasons      map[string]int          // interfaces by code; one may have several
	Milliseconds float64
	Skipped      bool // no flows were read
}

// OffloadPlace is what one place has.
type OffloadPlace struct {
	Flows   int
	Packets uint64 // since the reading before
}

// NewOffload adds the figures.
func NewOffload(s *Set) *Offload {
	name := func(what string) string { return prometheus.BuildFQName(namespace, "offload", what) }
	gauge := func(what, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name(what), Help: help}, labels)
		s.add(v)
		return v
	}
	counter := func(what, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(what), Help: help}, labels)
		s.add(v)
		return v
	}
	o := &Offload{
		flows:      gauge("flows", "Flows at the last reading, by place: hardware, tc, kernel, userspace.", "place"),
		interfaces: gauge("interfaces", "Interfaces of pods at the last reading, by where their packets are moved: hardware, partly, software, idle.", "verdict"),
		reasons:    gauge("interfaces_not_in_hardware", "Interfaces of pods that are not all in hardware, by reason; one may have several (docs/features/offload.md).", "reason"),
		packets:    counter("packets_total", "Packets that readings have seen, by place, each once at the slowest of its way.", "place"),
		readings:   counter("readings_total", "Readings by result: read; looked, no flows were read, for none can be offloaded or they are too many; failed.", "result"),
	}
	o.required = prometheus.NewGauge(prometheus.GaugeOpts{Name: name("required_out"), Help: "Interfaces of definitions that require offload, and less than half of whose packets are moved by the NIC."})
	s.add(o.required)
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: name("reading_milliseconds"), Help: "Time that reading all flows took, which ovs-vswitchd's main thread spends too.", Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000},
	})
	s.add(took)
	o.took = took
	return o
}

// Reading takes what a reading found.
func (o *Offload) Reading(r OffloadReading) {
	result := "read"
	if r.Skipped {
		result = "looked"
	}
	o.readings.WithLabelValues(result).Inc()
	o.flows.Reset()
	for place, p := range r.Places {
		o.flows.WithLabelValues(place).Set(float64(p.Flows))
		o.packets.WithLabelValues(place).Add(float64(p.Packets))
	}
	o.interfaces.Reset()
	for verdict, n := range r.Verdicts {
		o.interfaces.WithLabelValues(verdict).Set(float64(n))
	}
	o.reasons.Reset()
	for reason, n := range r.Reasons {
		o.reasons.WithLabelValues(reason).Set(float64(n))
	}
	if !r.Skipped {
		o.took.Observe(r.Milliseconds)
	}
}

// RequiredOut takes how many interfaces are out of hardware that are required to be in it.
func (o *Offload) RequiredOut(n int) { o.required.Set(float64(n)) }

// Failed counts a reading that could not be made.
func (o *Offload) Failed() { o.readings.WithLabelValues("failed").Inc() }
