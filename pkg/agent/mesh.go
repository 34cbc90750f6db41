package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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

func (a *Agent) serveRow(w http.ResponseWriter, r *http.Request) {
	row, ok := a.row(r.Context())
	if !ok {
		http.Error(w, "no pass is made yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(row) // who asked has gone
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
	var rows map[string]page.Row
	if a.PeerPort != 0 {
		rows = page.AskAll(ctx, own.Network, m.Peers, a.PeerPort)
	}
	return page.NewMesh(own.Network, m, own, rows)
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
	dropped, err := c.Dropped(ctx, state.TunnelBridge(last.file.OVS))
	if err == nil {
		counter(m.dropped, dropped)
	}
	return err
}
