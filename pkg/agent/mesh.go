package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/page"
	"ovs-gre-cni/pkg/probe"
	"ovs-gre-cni/pkg/state"
)

// measure asks the peers' gateways for as long as ctx lasts. A host that may not
// do so has no such metrics, and says so once.
func (a *Agent) measure(ctx context.Context) {
	err := a.meter.Run(ctx, probe.Slow, func() []probe.Target { return page.Targets(a.outcome().topology) })
	if err != nil {
		a.Log.Warn("loss and round trip are not measured: that takes CAP_NET_RAW or the sysctl net.ipv4.ping_group_range", "error", err)
	}
}

// outcome is the last pass's.
func (a *Agent) outcome() outcome {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// row is what this host knows of the mesh. ok is false before the first pass.
func (a *Agent) row(ctx context.Context) (r page.Row, ok bool) {
	last := a.outcome()
	if last.file.OVS == nil {
		return r, false
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	return page.NewRow(last.file.Name(), last.topology.Self.Name, last.topology.Peers, page.Tunnels(ctx, last.file), a.meter.Results()), true
}

// rowAge is how old a row may be that is told: however many ask, Open vSwitch is asked
// no more often, and no peer for anybody's sake.
const rowAge = time.Second

// A toldRow is the last one that was told, as JSON, and its lock.
type toldRow struct {
	sync.Mutex
	json []byte
	at   time.Time
}

// serveRow tells this host's row to the network's nodes and to this host itself.
func (a *Agent) serveRow(w http.ResponseWriter, r *http.Request) {
	if !a.isNode(r.RemoteAddr) {
		http.Error(w, "this is for the network's nodes alone", http.StatusForbidden)
		return
	}
	row, err := a.rowJSON(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(row) // who asked has gone
}

func (a *Agent) rowJSON(ctx context.Context) ([]byte, error) {
	a.told.Lock()
	defer a.told.Unlock()
	if now := time.Now(); now.Sub(a.told.at) > rowAge {
		row, ok := a.row(ctx)
		if !ok {
			return nil, errors.New("no pass is made yet")
		}
		var err error
		if a.told.json, err = json.Marshal(row); err != nil {
			return nil, err
		}
		a.told.at = now
	}
	return a.told.json, nil
}

// isNode reports whether a request comes from a node of the network, or from this
// host itself.
func (a *Agent) isNode(remote string) bool {
	at, err := netip.ParseAddrPort(remote)
	from := at.Addr().Unmap().WithZone("")
	return err == nil && (from.IsLoopback() ||
		slices.ContainsFunc(a.outcome().topology.All(), func(n config.Node) bool { return n.Address == from }))
}

// viewAge is how old a view may be that the page shows: with many readers the
// peers are asked no more often.
const viewAge = 5 * time.Second

// A view is the last one that the page showed, and its lock.
type view struct {
	sync.Mutex
	page.View
}

// look gathers what the page shows.
func (a *Agent) look(ctx context.Context) *page.View {
	a.view.Lock()
	defer a.view.Unlock()
	if now := time.Now(); now.Sub(a.view.At) > viewAge {
		v := page.View{Version: a.Version, At: now, Mesh: a.mesh(ctx)}
		var err error
		v.Networks, err = page.Look(ctx, filepath.Dir(a.Conflist))
		for _, err := range []error{err, a.Ready()} {
			if err != nil {
				v.Problems = append(v.Problems, err.Error())
			}
		}
		a.mu.Lock()
		for name, why := range a.leftOut {
			v.Problems = append(v.Problems, "node "+name+" is left out: "+why)
		}
		a.mu.Unlock()
		a.view.View = v
	}
	v := a.view.View
	return &v
}

// mesh is the network as this host and the others' agents know it; nil before
// the first pass.
func (a *Agent) mesh(ctx context.Context) *page.Mesh {
	own, ok := a.row(ctx)
	if !ok {
		return nil
	}
	m := a.outcome().topology
	var told map[string]page.Told
	if a.PeerPort != 0 {
		told = page.AskAll(ctx, own.Network, m, a.PeerPort)
	}
	return page.NewMesh(own.Network, m, own, told)
}

// PageHandler serves the page at /, and its picture at /mesh.svg.
func (a *Agent) PageHandler() http.Handler {
	mux := http.NewServeMux()
	serve := func(path, contentType string, write func(*page.View, *bytes.Buffer) error) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if !plainHost(r.Host) {
				http.Error(w, "this page is served by its address alone", http.StatusForbidden)
				return
			}
			var b bytes.Buffer
			if err := write(a.look(r.Context()), &b); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Content-Security-Policy", page.Policy)
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(b.Bytes()) // who asked has gone
		})
	}
	serve("/{$}", "text/html; charset=utf-8", func(v *page.View, b *bytes.Buffer) error { return v.WriteHTML(b) })
	serve("/mesh.svg", "image/svg+xml", func(v *page.View, b *bytes.Buffer) error {
		if v.Mesh == nil {
			return page.ErrNoMesh
		}
		return v.Mesh.WriteSVG(b)
	})
	return mux
}

// plainHost reports whether a request names an address or localhost. Another
// name may be a stranger's web page that has its own name lead here (DNS
// rebinding), to read this one.
func plainHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost"
}

// collectMesh tells of the peers that echo requests went to.
func (m *metrics) collectMesh(gauge func(*prometheus.Desc, int, ...string)) {
	unreachable, lossy := 0, 0
	for _, r := range m.agent.meter.Results() {
		switch {
		case r.Silent:
			unreachable++
		case r.Lost > 0:
			lossy++
		}
	}
	gauge(m.unreachable, unreachable)
	gauge(m.lossy, lossy)
}

// collectOVSCounters tells what ovs-vswitchd counts.
func (m *metrics) collectOVSCounters(ctx context.Context, last outcome, to chan<- prometheus.Metric) error {
	counter := func(d *prometheus.Desc, n uint64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	c, err := ovs.DialControl(ctx, last.file.OVS.OVSDB)
	if err != nil {
		return err
	}
	defer c.Close()
	missed, lost, err := c.Upcalls(ctx)
	if err != nil {
		return err
	}
	counter(m.missed, missed)
	counter(m.lost, lost)
	if !state.UsesTunnelBridge(last.file.OVS) {
		return nil
	}
	bridge := state.TunnelBridge(last.file.OVS)
	var dropped uint64
	if state.OneTunnel(last.file.OVS) && last.topology.Fan.IsZero() {
		// Of thousands of flows one drops; to list them all costs ovs-vswitchd tens of ms.
		dropped, err = ovs.Strangers(ctx, last.file.OVS.OVSDB, bridge)
	} else {
		dropped, err = c.Dropped(ctx, bridge)
	}
	if err == nil {
		counter(m.dropped, dropped)
	}
	return err
}
