package ping

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/nodes"
)

// A Host is this host, which Row measures from.
type Host struct {
	// Mesh has the peers.
	Mesh nodes.Topology
	// Source is the tunnels' source address; the zero Addr leaves it to the
	// kernel.
	Source netip.Addr
	// Gateways are this host's own gateway addresses, the sources of echo requests
	// through the tunnels. A family without one is not measured.
	Gateways []netip.Addr
	// Underlay is the MTU of the links to the peers, Inside that of containers, in
	// bytes: the largest sizes that are sent.
	Underlay, Inside int
}

// An Edge has the measurements from this host to one peer.
type Edge struct {
	// Peer is the peer's name.
	Peer string `json:"peer"`
	// Underlay is measured to the peer's address, Tunnel to its first gateway address
	// of a family in which this host has one, too; nil if there is none.
	Underlay Path  `json:"underlay"`
	Tunnel   *Path `json:"tunnel,omitempty"`
}

// A Path has the measurements to one address.
type Path struct {
	Address netip.Addr `json:"address"`
	// Sent and Received count small echo requests and their replies.
	Sent     int `json:"sent"`
	Received int `json:"received"`
	// RTT is the least round trip in milliseconds; 0 where no request was answered.
	RTT float64 `json:"rttMs"`
	// MTU is the size in bytes of the largest IP packet that was answered, up to
	// Host.Underlay or Host.Inside; 0 where none was.
	MTU int `json:"mtu"`
	// Small: packets of Host.Underlay or Host.Inside bytes were not answered.
	Small bool `json:"small"`
}

// Lost is the percentage of small echo requests without a reply.
func (p Path) Lost() int { return 100 * (p.Sent - p.Received) / max(p.Sent, 1) }

// OK reports whether all echo requests were answered, the largest one included.
func (p Path) OK() bool { return p.Received == p.Sent && !p.Small }

// Row sends count small requests and a large one to each address, gap apart, and then searches
// for path MTUs in rounds. All addresses are measured at once.
const (
	count  = 3
	gap    = 100 * time.Millisecond
	rounds = 4
	// fan is how many sizes a round tries at once: four rounds tell 9^4 sizes apart.
	fan = 8
)

// Longest is the longest time that Row takes, if the host's processors are not overloaded.
const Longest = (count+1)*gap + Pause + rounds*(gap+Pause/2)

// least is the smallest MTU in bytes that a link may have (RFC 791, RFC 8200).
func least(v6 bool) int {
	if v6 {
		return 1280
	}
	return 68
}

// Row measures the edges to all peers at once and returns them in the order of the peers.
// step, if not nil, is called with the progress, done of of parts. The error is as of
// Exchange.
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

// gateway returns a peer's first gateway of a family in which this host has one, and this
// host's.
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
	// most is the largest size that is sent. The path MTU is at least path.MTU and less
	// than fails.
	most, fails int
}

// reach sends the small echo requests and the largest one to each address.
func reach(ctx context.Context, ways []*way) error {
	var list []Echo
	for n := range count {
		for i, w := range ways {
			// The requests are spread over the gap, so that no queue overflows.
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

// lesser is the lesser of two round trips; 0 is none.
func lesser(a, b float64) float64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// narrow narrows the interval that each path MTU is in. It reports whether there was one to
// narrow.
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
