package agent

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/state"
)

// metrics are the agent's Prometheus metrics. Passes and changes are counted when they
// are made; host state is observed when Prometheus scrapes.
type metrics struct {
	agent    *Agent
	registry *prometheus.Registry

	passes   *prometheus.CounterVec
	duration prometheus.Histogram
	changes  prometheus.Counter
	drift    prometheus.Counter
	probes   *prometheus.CounterVec
	trips    prometheus.Histogram

	peers, leftOut, tunnels, routes, portErrors, leases, addresses *prometheus.Desc
	unreachable, lossy, missed, lost, dropped                      *prometheus.Desc
}

const namespace = "ovs_gre_agent"

func newMetrics(a *Agent) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	m := &metrics{
		agent: a, registry: prometheus.NewRegistry(),
		passes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "passes_total",
			Help: "Passes by result: ok, waiting (this host is no node yet), error."}, []string{"result"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "reconcile_duration_seconds",
			Help: "How long passes took.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 14)}),
		changes: counter("changes_total", "Changes made to the host."),
		drift:   counter("drift_repaired_total", "Changes made although the pass before wanted the same: somebody else had changed the host."),

		probes: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "probes_total",
			Help: "Echo requests to the peers' gateways, the way of containers' packets, by result: answered, lost."}, []string{"result"}),
		trips: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "probe_round_trip_seconds",
			Help: "Round trips of the echo requests that were answered.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 15)}),

		peers:   desc("peers", "Peers of this host."),
		leftOut: desc("nodes_left_out", "Nodes that are not part of the network; the log says why."),
		tunnels: desc("tunnels", "Tunnels by state: up, down, error; "+
			"of an encrypted network its peers: up (there is a session), idle, no key.", "state"),
		routes:     desc("routes", "Routes to peers by state: ok, missing, wrong.", "state"),
		portErrors: desc("port_errors", "Ports of the network that OVS complains about."),
		leases:     desc("leaked_leases", "Leases of containers that have no link."),
		addresses:  desc("leaked_addresses", "Addresses that host-local holds for containers that have no link."),

		unreachable: desc("peers_unreachable", "Peers that answered none of the last three echo requests."),
		lossy:       desc("peers_lossy", "Peers that answered some, not all, of the last 20 echo requests."),
		missed:      desc("upcalls_missed_total", "Packets that no flow of OVS's datapaths knew, of all bridges of this host."),
		lost:        desc("upcalls_lost_total", "Packets of those that ovs-vswitchd did not take: they are lost."),
		dropped:     desc("tunnel_dropped_packets_total", "Packets that flows of the tunnels' bridge drop, such as those of no peer."),
	}
	for _, result := range []string{resultAnswered, resultLost} {
		m.probes.WithLabelValues(result)
	}
	for _, result := range []string{resultOK, resultWaiting, resultError} {
		m.passes.WithLabelValues(result)
	}
	m.registry.MustRegister(m, m.passes, m.duration, m.changes, m.drift, m.probes, m.trips,
		buildInfo(a.Version), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// The results of passes, values of a label.
const (
	resultOK      = "ok"
	resultWaiting = "waiting"
	resultError   = "error"
)

// How echo requests end.
const (
	resultAnswered = "answered"
	resultLost     = "lost"
)

// buildInfo tells the version, as a label of 1.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info",
		Help: "1, with the agent's version.", ConstLabels: prometheus.Labels{"version": version}}, func() float64 { return 1 })
}

// probed counts an echo request; a round trip of 0 is one that was lost.
func (m *metrics) probed(rtt time.Duration) {
	if rtt == 0 {
		m.probes.WithLabelValues(resultLost).Inc()
		return
	}
	m.probes.WithLabelValues(resultAnswered).Inc()
	m.trips.Observe(rtt.Seconds())
}

func (m *metrics) passEnded(took time.Duration, err error) {
	result := resultOK
	switch {
	case errors.Is(err, nodes.ErrNotReady):
		result = resultWaiting
	case err != nil:
		result = resultError
	}
	m.passes.WithLabelValues(result).Inc()
	m.duration.Observe(took.Seconds())
}

func (m *metrics) changed(drift bool) {
	m.changes.Inc()
	if drift {
		m.drift.Inc()
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.peers, m.leftOut, m.tunnels, m.routes, m.portErrors, m.leases, m.addresses,
		m.unreachable, m.lossy, m.missed, m.lost, m.dropped} {
		to <- d
	}
}

// scrapeTimeout is how long a look at the host may take.
const scrapeTimeout = 5 * time.Second

// Collect implements prometheus.Collector. It leaves out metrics whose observation
// fails, and logs the error.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	m.agent.mu.Lock()
	last, leftOut := m.agent.last, len(m.agent.leftOut)
	m.agent.mu.Unlock()
	gauge(m.leftOut, leftOut)
	gauge(m.peers, len(last.topology.Peers))
	if last.file.OVS == nil {
		return // no pass has succeeded yet
	}
	m.collectMesh(gauge)
	if err := m.collectOVSCounters(ctx, last, to); err != nil {
		m.agent.Log.Warn("metrics", "error", err, "metric", m.lost.String())
	}
	for d, look := range map[*prometheus.Desc]func(context.Context, outcome, func(*prometheus.Desc, int, ...string)) error{
		m.tunnels: m.collectOVS, m.routes: m.collectRoutes, m.leases: m.collectLeaks,
	} {
		if err := look(ctx, last, gauge); err != nil {
			m.agent.Log.Warn("metrics", "error", err, "metric", d.String())
		}
	}
}

func (m *metrics) collectOVS(ctx context.Context, last outcome, gauge func(*prometheus.Desc, int, ...string)) error {
	conn, err := ovs.Dial(ctx, last.file.OVS.OVSDB)
	if err != nil {
		return err
	}
	defer conn.Close()
	tunnels, err := conn.Tunnels(ctx, last.file.Name())
	if err != nil {
		return err
	}
	count := map[string]int{"up": 0, "down": 0, "error": 0}
	for _, t := range tunnels {
		count[t.State]++
	}
	if state.Encrypted(last.file.OVS) {
		if count, err = wireGuardStates(ctx, last); err != nil {
			return err
		}
	}
	for s, n := range count {
		gauge(m.tunnels, n, s)
	}
	bad, err := conn.BadPorts(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, p := range bad {
		if p.Network == last.file.Name() {
			n++
		}
	}
	gauge(m.portErrors, n)
	return nil
}

// wireGuardStates counts the peers of an encrypted network by their states.
func wireGuardStates(ctx context.Context, last outcome) (map[string]int, error) {
	peers, err := conflist.WireGuardPeers(ctx, &network.Network{Config: last.file.OVS, Topology: last.topology})
	count := map[string]int{"up": 0, "idle": 0, "no key": 0}
	for _, p := range peers {
		count[p.State]++
	}
	return count, err
}

func (m *metrics) collectRoutes(ctx context.Context, last outcome, gauge func(*prometheus.Desc, int, ...string)) error {
	if last.file.Routes == nil {
		return nil
	}
	r, err := routes.Open(ctx, last.file.Routes, last.file.Bridge())
	if err != nil {
		return err
	}
	want, err := r.Want()
	if err != nil {
		return err
	}
	changes, err := state.Check(ctx, want, r.Backends()...)
	if err != nil {
		return err
	}
	count := map[string]int{"ok": 0, "missing": 0, "wrong": 0}
	for id := range want {
		if id.Kind == state.KindRoute {
			count["ok"]++
		}
	}
	for _, c := range changes {
		switch {
		case c.New == nil || c.Kind() != state.KindRoute:
			continue
		case c.Old == nil:
			count["missing"]++
		default:
			count["wrong"]++
		}
		count["ok"]--
	}
	for s, n := range count {
		gauge(m.routes, n, s)
	}
	return nil
}

func (m *metrics) collectLeaks(ctx context.Context, last outcome, gauge func(*prometheus.Desc, int, ...string)) error {
	all, err := network.ReadAttachments(ctx, last.file.Name())
	if err != nil {
		return err
	}
	gauge(m.leases, len(all.WithoutLink()))
	leaked, err := attach.LeakedAddresses(ctx, last.file.OVS)
	if err != nil {
		return err
	}
	gauge(m.addresses, len(leaked))
	return nil
}
