package agent

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ovs-gre-cni/pkg/page"
)

// Handler serves /healthz, /readyz, /metrics and, for the pages of other agents,
// what this host knows of the mesh.
func (a *Agent) Handler() http.Handler {
	mux := Probes(a.Healthy, a.Ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.metrics.registry,
		promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 2 * scrapeTimeout}))
	mux.HandleFunc("GET "+page.RowPath, a.serveRow)
	return mux
}

// Probes serves /healthz and /readyz: 200 where there is no error, else 503
// with its text.
func Probes(healthy, ready func() error) *http.ServeMux {
	mux := http.NewServeMux()
	for path, ask := range map[string]func() error{"GET /healthz": healthy, "GET /readyz": ready} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			if err := ask(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	return mux
}
