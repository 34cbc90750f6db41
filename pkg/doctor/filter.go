package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/firewall"
	"ovs-gre-cni/pkg/routes"
	"ovs-gre-cni/pkg/state"
)

// forwardFilter looks whether this host drops what it forwards for containers.
func forwardFilter(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.gateway == "" || n.topologyErr != nil {
			continue
		}
		found, err := n.obstacles(ctx)
		switch {
		case err != nil:
			list = append(list, unknown(n.Name(), err))
		case len(found) > 0:
			list = append(list, found...)
		default:
			list = append(list, ok(n.Name(), "what %s forwards is not dropped", n.gateway))
		}
	}
	return list
}

// obstacles tells of all that drops what the network forwards, one finding a
// rule.
func (n *networkInfo) obstacles(ctx context.Context) ([]Finding, error) {
	want := state.Set{}
	if n.OVS != nil {
		want.Put(state.Forwards(n.OVS, n.topology)...)
	}
	if n.Routes != nil {
		if r, err := routes.Open(ctx, n.Routes, n.Bridge()); err == nil {
			set, _ := r.Want() // what has no way has no accept; the host state's check tells of it
			for id, o := range set {
				if id.Kind == state.KindForward {
					want.Put(o)
				}
			}
		}
	}
	all, err := firewall.NewBackend(n.Name()).Obstacles(ctx, want)
	more, err2 := firewall.NewRoutesBackend(n.Name()).Obstacles(ctx, want)
	var list []Finding
	of := map[string]int{} // findings by rule
	for _, o := range append(all, more...) {
		what := strings.TrimPrefix(o.Forward.Noun(), "forward accept of ")
		f, told := n.obstacle(o, what)
		at, again := of[o.By+f.Command]
		switch {
		case !told:
		case !again:
			of[o.By+f.Command] = len(list)
			list = append(list, f)
		case !strings.Contains(list[at].Seen+",", what+","):
			list[at].Seen += ", " + what
		}
	}
	return list, errors.Join(err, err2)
}

// dockerAdvice is what helps where Docker's nftables backend drops.
const dockerAdvice = "give Docker's containers a network with gateway mode nat-unprotected (docs/docker.md)"

// obstacle is a finding about what drops packets; told is false where it drops
// some of those that go out, or come back, which is somebody's wish.
func (n *networkInfo) obstacle(o firewall.Obstacle, what string) (f Finding, told bool) {
	peers := o.Forward.From != "" && o.Forward.To != ""
	switch {
	case (o.Docker() || !o.Sure && o.Part) && !peers:
		return f, false
	case o.Docker() && o.Sure:
		return fail(n.Name(), "", "%s drops what is forwarded, and no rule of another table can accept it; %s: %s",
			o.By, dockerAdvice, what), true
	case o.Mendable && o.Sure:
		return fail(n.Name(), n.upCommand(), "%s drops what is forwarded: %s", o.By, what), true
	case o.Sure:
		return warn(n.Name(), o.ListCommand(), "%s drops what is forwarded, and stays, for somebody made it for that: %s", o.By, what), true
	case o.Part:
		return warn(n.Name(), o.ListCommand(), "%s drops some of what is forwarded: %s", o.By, what), true
	}
	return warn(n.Name(), o.ListCommand(), "%s may drop what is forwarded: %s", o.By, what), true
}

// tunnelInput looks whether this host takes its peers' tunnel packets. On the
// userspace datapath they do not pass the kernel's filter.
func tunnelInput(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		switch {
		case !n.tunnels() || n.topologyErr != nil || !n.topology.HasPeers():
		case n.netdev && !n.encrypted():
			list = append(list, ok(n.Name(), "not filtered on the userspace datapath"))
		default:
			list = append(list, n.tunnelInput(ctx))
		}
	}
	return list
}

func (n *networkInfo) tunnelInput(ctx context.Context) Finding {
	proto, port := n.protocol()
	what := "GRE (IP protocol 47)"
	if proto == protoUDP {
		what = "UDP port " + itoa(int(port))
	}
	var classes []firewall.Packet
	asked := n.senders()
	for _, s := range asked {
		p := firewall.Packet{In: n.underlay, IPv6: s.from.Addr().Is6(), Proto: proto, Port: port}
		p.From, p.To = []netip.Prefix{s.from}, single(n.topology.Self.Address)
		classes = append(classes, p)
	}
	found, err := firewall.FindDrops(ctx, firewall.Input, classes...)
	if err != nil {
		return unknown(n.Name(), err)
	}
	for i, d := range found {
		switch {
		case d == nil:
		case d.Sure && !d.Doubt:
			return fail(n.Name(), n.acceptCommand(d, proto, port), "%s drops %s from %s", d.By, what, asked[i].name)
		default:
			return warn(n.Name(), n.acceptCommand(d, proto, port), "%s may drop %s from %s", d.By, what, asked[i].name)
		}
	}
	return ok(n.Name(), "%s from the peers is let in", what)
}

// A sender is who sends tunnel packets to this host.
type sender struct {
	name string
	from netip.Prefix
}

// senders are the peers that are asked or, where no list has the peers, all at once.
func (n *networkInfo) senders() []sender {
	if fan := n.topology.Fan; !fan.IsZero() {
		return []sender{{n.topology.Holders()[0].Name, fan.Underlay}}
	}
	var list []sender
	for _, p := range n.probedPeers() {
		list = append(list, sender{"peer " + p.String(), single(p.Address)[0]})
	}
	return list
}

func single(a netip.Addr) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())} }

// acceptCommand is the command that lets the peers' tunnel packets in, first of all.
func (n *networkInfo) acceptCommand(d *firewall.Drop, proto byte, port uint16) string {
	var addrs []string
	for _, s := range n.senders() {
		if s.from.IsSingleIP() {
			addrs = append(addrs, s.from.Addr().String())
		} else {
			addrs = append(addrs, s.from.String())
		}
	}
	v6 := n.topology.Self.Address.Is6()
	if d.IPTables {
		cmd, match := "iptables", "-p gre"
		if v6 {
			cmd = "ip6tables"
		}
		if proto == protoUDP {
			match = "-p udp --dport " + itoa(int(port))
		}
		if d.Legacy {
			cmd += "-legacy"
		}
		return fmt.Sprintf("%s -w -I INPUT %s -s %s -j ACCEPT", cmd, match, strings.Join(addrs, ","))
	}
	saddr, match := "ip saddr", "meta l4proto 47"
	if v6 {
		saddr = "ip6 saddr"
	}
	if proto == protoUDP {
		match = "udp dport " + itoa(int(port))
	}
	return fmt.Sprintf("for a in %s; do nft insert rule %s %s %s %s $a %s accept; done",
		strings.Join(addrs, " "), d.Family, quote(d.Table), quote(d.Chain), saddr, match)
}

// rawDrop looks whether a peer's packets to our containers' addresses are
// dropped before they are routed: Docker 28 and later do so with what comes for
// a container by another link than its bridge.
func rawDrop(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if n.topologyErr == nil && n.topology.HasPeers() {
			list = append(list, n.rawDrop(ctx))
		}
	}
	return list
}

// arrival is the link by which peers' packets to containers come.
func (n *networkInfo) arrival() string {
	switch {
	case n.mode() == config.ModeDirect || n.OVS == nil:
		return n.underlay
	case n.transit() != "":
		return n.transit()
	}
	return n.gateway
}

func (n *networkInfo) rawDrop(ctx context.Context) Finding {
	var classes []firewall.Packet
	for _, s := range n.topology.Self.Subnets {
		p := firewall.Packet{In: n.arrival(), IPv6: s.Addr().Is6(), To: []netip.Prefix{s}}
		for _, from := range n.topology.PeerSubnets() {
			if from.Addr().Is6() == p.IPv6 {
				p.From = append(p.From, from)
			}
		}
		classes = append(classes, p)
	}
	found, err := firewall.FindDrops(ctx, firewall.Prerouting, classes...)
	if err != nil {
		return unknown(n.Name(), err)
	}
	for i, d := range found {
		subnet := n.topology.Self.Subnets[i]
		switch {
		case d == nil:
		case d.Docker():
			return fail(n.Name(), "", "%s drops what comes by %s for %s, and Docker makes it anew with each container; %s",
				d.By, n.arrival(), subnet, dockerAdvice)
		case d.Sure || d.Part:
			return fail(n.Name(), d.AcceptCommand(n.arrival(), subnet),
				"%s drops what comes by %s for %s (Docker 28 and later do that to protect its containers)", d.By, n.arrival(), subnet)
		default:
			return warn(n.Name(), d.ListCommand(), "%s may drop what comes by %s for %s", d.By, n.arrival(), subnet)
		}
	}
	return ok(n.Name(), "no raw rule drops what peers send to containers")
}
