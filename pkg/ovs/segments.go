package ovs

import (
	"context"
	"net/netip"
)

// A SegmentPort is a port of an OVS bridge, with its attributes that tell whether it
// joins the bridge's Ethernet segment with another.
type SegmentPort struct {
	Bridge, Name string
	// Peer is the port at the other end of a patch port; "" is no patch port.
	Peer string
	// Remote is the far end of a tunnel; the zero Addr is no tunnel, or one with
	// AnyRemote.
	Remote netip.Addr
	// AnyRemote: the flows choose the far end of the tunnel (remote_ip=flow).
	AnyRemote bool
	// Type is the interface's; Key and DstPort are the tunnel's options, "" where
	// it has none.
	Type, Key, DstPort string
	// Network is the network that owns the port; "" is none of ours.
	Network string
}

// SegmentPorts lists the ports of all bridges, ours and others'.
func (c *Conn) SegmentPorts(ctx context.Context) ([]SegmentPort, error) {
	res, err := c.Transact(ctx,
		selectOp("Bridge", nil, "name", "ports"),
		selectOp("Port", nil, "_uuid", "interfaces"),
		selectOp("Interface", nil, "_uuid", "name", "type", "options", "external_ids"))
	if err != nil {
		return nil, err
	}
	bridgeOf, ifaceOn := map[string]string{}, map[string]string{}
	for _, r := range res[0].Rows {
		for _, id := range r.uuids("ports") {
			bridgeOf[id] = r.str("name")
		}
	}
	for _, r := range res[1].Rows {
		for _, id := range r.uuids("interfaces") {
			ifaceOn[id] = bridgeOf[r.uuid("_uuid")]
		}
	}
	var list []SegmentPort
	for _, r := range res[2].Rows {
		opts := r.strings("options")
		p := SegmentPort{Bridge: ifaceOn[r.uuid("_uuid")], Name: r.str("name"), Network: r.strings("external_ids")[keyNetwork]}
		if r.str("type") == "patch" {
			p.Peer = opts["peer"]
		}
		p.Remote, _ = netip.ParseAddr(opts["remote_ip"])
		p.Type, p.Key, p.DstPort, p.AnyRemote = r.str("type"), opts["key"], opts["dst_port"], opts["remote_ip"] == "flow"
		if p.Bridge != "" {
			list = append(list, p)
		}
	}
	return list, nil
}
