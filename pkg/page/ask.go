package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/nodes"
)

// AskMost is up to how many peers are asked for their rows: what they tell grows as the
// square of their number, to some 100 MB here, and all of them ask.
const AskMost = 500

const (
	// RowPath is the path of the URL by which an agent serves its Row as JSON.
	RowPath = "/row"
	// askBound is how long AskAll waits for all peers together.
	askBound = 2 * time.Second
	// askers is how many peers are asked at once.
	askers = 64
	// rowMost is up to how many bytes of a row are read: 10,000 edges are about 1 MB.
	rowMost = 4 << 20
)

// A Told is what a peer's agent answers: its row, or why there is none.
type Told struct {
	Row Row
	Err error
}

// errOther is the error of an agent that speaks of something else.
var errOther = errors.New("its agent keeps another network")

// AskAll asks the agents of a node's peers for their rows, at the nodes' addresses
// and from the node's own, by which they know whom they tell. It returns what each
// says, by the peers' names; who says nothing in time has an error. Of more than
// AskMost peers none is asked.
func AskAll(ctx context.Context, network string, m nodes.Topology, port uint16) map[string]Told {
	if len(m.Peers) > AskMost {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	client := newClient(m.Self.Address)
	var mu sync.Mutex
	var all sync.WaitGroup
	told := map[string]Told{}
	turn := make(chan struct{}, askers)
	for _, p := range m.Peers {
		all.Go(func() {
			var t Told
			select {
			case turn <- struct{}{}:
				t.Row, t.Err = ask(ctx, client, p.Address, port)
				<-turn
			case <-ctx.Done():
				t.Err = ctx.Err()
			}
			// What others say is about themselves alone, and this network.
			if t.Err == nil && (t.Row.Network != network || t.Row.Host != p.Name) {
				t = Told{Err: errOther}
			}
			mu.Lock()
			told[p.Name] = t
			mu.Unlock()
		})
	}
	all.Wait()
	return told
}

// rows are those that were told.
func rows(told map[string]Told) map[string]Row {
	list := make(map[string]Row, len(told))
	for name, t := range told {
		if t.Err == nil {
			list[name] = t.Row
		}
	}
	return list
}

// newClient asks peers, and nobody in between. from is its source address, unless
// this host has it not, as behind NAT.
func newClient(from netip.Addr) *http.Client {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		conn, err := d.DialContext(ctx, network, addr)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			d.LocalAddr = nil
			return d.DialContext(ctx, network, addr)
		}
		return conn, err
	}
	return &http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true, DialContext: dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func ask(ctx context.Context, client *http.Client, at netip.Addr, port uint16) (r Row, err error) {
	url := "http://" + net.JoinHostPort(at.String(), strconv.Itoa(int(port))) + RowPath
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return r, err
	}
	res, err := client.Do(req)
	if err != nil {
		return r, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return r, fmt.Errorf("%s: %s", url, res.Status)
	}
	return r, json.NewDecoder(io.LimitReader(res.Body, rowMost)).Decode(&r)
}
