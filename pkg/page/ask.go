package page

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"ovs-gre-cni/pkg/config"
)

const (
	// RowPath is where an agent tells its row.
	RowPath = "/row"
	// askBound is how long all peers together have to tell their rows. Who does
	// not by then is left out.
	askBound = 2 * time.Second
	// askers is how many are asked at once.
	askers = 64
	// rowMost is how many bytes of a row are read: 10,000 edges are about 1 MB.
	rowMost = 4 << 20
)

// client asks peers, and nobody in between.
var client = &http.Client{
	Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// AskAll asks the agents of peers for their rows, at the nodes' addresses. It
// returns those that came in time, by the peers' names.
func AskAll(ctx context.Context, network string, peers []config.Node, port uint16) map[string]Row {
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	rows := map[string]Row{}
	turn := make(chan struct{}, askers)
	for _, p := range peers {
		all.Go(func() {
			select {
			case turn <- struct{}{}:
			case <-ctx.Done():
				return
			}
			defer func() { <-turn }()
			r, err := ask(ctx, p.Address, port)
			// What others say is about themselves alone, and this network.
			if err == nil && r.Network == network && r.Host == p.Name {
				mu.Lock()
				rows[p.Name] = r
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return rows
}

func ask(ctx context.Context, at netip.Addr, port uint16) (r Row, err error) {
	url := "http://" + net.JoinHostPort(at.String(), strconv.Itoa(int(port))) + RowPath
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r, err
	}
	res, err := client.Do(req)
	if err != nil {
		return r, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return r, fmt.Errorf("%s: %s", url, res.Status)
	}
	return r, json.NewDecoder(io.LimitReader(res.Body, rowMost)).Decode(&r)
}
