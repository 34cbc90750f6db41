package ping

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// A Host is what a row is measured from.
type Host struct {
	Mesh nodes.Topology
	// Source is the tunnels' source address; the zero Addr leaves it to the
	// kernel.
	Source netip.Addr
	// Gateways are this host's own gateway addresses: echo requests through the
	// tunnels come from them. A family without one is not measured.
	Gateways []netip.Addr
	// Underlay is the MTU of the links to the peers, Inside that of containers,
	// in bytes: the most that is looked for.
	Underlay, Inside int
}

// An Edge is what was measured between this host and one peer.
type Edge struct {
	Peer string `json:"peer"`
	// Underlay is the way to the peer itself, Tunnel that to its first gateway
	// address of a family that both have; nil where there is none.
	Underlay Path  `json:"underlay"`
	Tunnel   *Path `json:"tunnel,omitempty"`
}

// A Path is what was measured of one way.
type Path struct {
	Address  netip.Addr `json:"address"`
	Sent     int        `json:"sent"`
	Received int        `json:"received"`
	// RTT is the least round trip in milliseconds; 0 where nothing was answered.
	RTT float64 `json:"rttMs"`
	// MTU is the largest IP packet in bytes that was answered, up to what this
	// host sends; 0 where none was.
	MTU int `json:"mtu"`
	// Small: less gets through than this host sends.
	Small bool `json:"small"`
}

// Lost is how many percent of the echo requests were not answered.
func (p Path) Lost() int { return 100 * (p.Sent - p.Received) / max(p.Sent, 1) }

// OK reports whether every echo request was answered, the largest one, too.
func (p Path) OK() bool { return p.Received == p.Sent && !p.Small }

// A row takes at most first + count × gap + Pause for what is answered or not,
// and rounds × (2 × gap + Pause/2) for path MTUs: under three seconds, for
// however many peers.
const (
	count  = 3
	gap    = 100 * time.Millisecond
	rounds = 4
	// fan is how many sizes a round tries at once: 9^4 is more than there are.
	fan = 8
)

// Longest is the most that Row takes on a host that is not short of processors.
const Longest = (count+1)*gap + Pause + rounds*(gap+Pause/2)

// least is the size in bytes that every link has room for (RFC 791, RFC 8200).
func least(v6 bool) int {
	if v6 {
		return 1280
	}
	return 68
}

// Row measures all of this host's edges at once, in the order of the peers.
// step, unless it is nil, is told how far it is, in tenths. The error is as
// Exchange's.
func Row(ctx context.Context, h Host, step func(done, of int)) ([]Edge, error) {
	if step == nil {
		step = func(int, int) {}
	}
	edges := make([]Edge, len(h.Mesh.Peers))
	var ways []*way
	for i, p := range h.Mesh.Peers {
		edges[i] = Edge{Peer: p.Name, Underlay: Path{Address: p.Address}}
		ways = append(ways, &way{path: &edges[i].Underlay, from: h.Source, most: h.Underlay})
		if gw, own := h.gateway(p); gw.IsValid() {
			edges[i].Tunnel = &Path{Address: gw}
			ways = append(ways, &way{path: edges[i].Tunnel, from: own, most: h.Inside})
		}
	}
	if len(ways) == 0 {
		return edges, nil
	}
	step(1, 10)
	if err := reach(ctx, ways); err != nil {
		return nil, err
	}
	for i := range rounds {
		step(4+i, 10)
		if more, err := narrow(ctx, ways); err != nil || !more {
			return edges, err
		}
	}
	return edges, nil
}

// gateway is the first gateway of a peer of a family that this host has one of,
// and that.
func (h Host) gateway(p config.Node) (peers, own netip.Addr) {
	for _, gw := range p.Gateways() {
		if i := slices.IndexFunc(h.Gateways, func(a netip.Addr) bool { return a.Is6() == gw.Is6() }); i >= 0 {
			return gw, h.Gateways[i]
		}
	}
	return netip.Addr{}, netip.Addr{}
}

// A way is a Path that is being measured.
type way struct {
	path *Path
	from netip.Addr
	// most is the largest packet that is sent; what is answered is at least the
	// path's MTU, and less than fails.
	most, fails int
}

// reach sends the small echo requests, and the largest one.
func reach(ctx context.Context, ways []*way) error {
	var list []Echo
	for n := range count {
		for i, w := range ways {
			// Spread over the gap, so that no queue on the way overflows.
			at := time.Duration(n)*gap + gap*time.Duration(i)/time.Duration(len(ways))
			list = append(list, Echo{To: w.path.Address, From: w.from, At: at})
		}
	}
	for i, w := range ways {
		at := count*gap + gap*time.Duration(i)/time.Duration(len(ways))
		list = append(list, Echo{To: w.path.Address, From: w.from, Size: w.most, At: at})
	}
	if err := Exchange(ctx, list, Pause); err != nil {
		return err
	}
	for i, e := range list {
		w := ways[i%len(ways)]
		p := w.path
		switch {
		case i >= count*len(ways):
			w.fails = w.most
			if e.Answered {
				p.MTU, w.fails = w.most, w.most+1
			}
			continue
		case e.Answered:
			p.Received++
			p.RTT = lesser(p.RTT, max(float64(e.RTT.Microseconds()), 1)/1000)
		}
		p.Sent++
	}
	for _, w := range ways {
		if p := w.path; p.Received > 0 && p.MTU == 0 {
			p.MTU, p.Small = least(p.Address.Is6()), true
		}
	}
	return nil
}

// lesser is the less of two round trips; 0 is none.
func lesser(a, b float64) float64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// narrow makes the span smaller in which each path's MTU is, and reports
// whether there is anything left to look for.
func narrow(ctx context.Context, ways []*way) (more bool, err error) {
	var list []Echo
	var of []*way
	for _, w := range ways {
		span := w.fails - w.path.MTU
		if !w.path.Small || span <= 1 {
			continue
		}
		before := w.path.MTU
		for i := 1; i <= fan; i++ {
			if size := w.path.MTU + span*i/(fan+1); size > before {
				list, of = append(list, Echo{To: w.path.Address, From: w.from, Size: size}), append(of, w)
				before = size
			}
		}
	}
	if len(list) == 0 {
		return false, nil
	}
	for i := range list {
		list[i].At = gap * time.Duration(i) / time.Duration(len(list))
	}
	if err := Exchange(ctx, list, Pause/2); err != nil {
		return false, err
	}
	for i, e := range list {
		if e.Answered {
			of[i].path.MTU = max(of[i].path.MTU, e.Size)
		}
	}
	for i, e := range list {
		if !e.Answered && e.Size > of[i].path.MTU {
			of[i].fails = min(of[i].fails, e.Size)
		}
	}
	return true, nil
}
