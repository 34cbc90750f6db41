package ovs

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/ovn-org/libovsdb/ovsdb"
)

// A TunnelStatus is the state of one tunnel as OVS reports it.
type TunnelStatus struct {
	Name string `json:"name"`
	// Peer and Remote are "" and the zero Addr where it is the tunnel to all peers.
	Peer   string     `json:"peer"`
	Remote netip.Addr `json:"remote"`
	Type   string     `json:"type"`
	// State is up, down, or error.
	State string `json:"state"`
	// Error is OVS's error about the tunnel; "" is none.
	Error string `json:"error,omitempty"`
	// BFD is the state of the BFD session; "" where BFD is off.
	BFD string `json:"bfd,omitempty"`
	// Diagnostic is BFD's reason for a session that is down; "" is none.
	Diagnostic string `json:"bfdDiagnostic,omitempty"`
	// Received and Sent count packets.
	Received uint64 `json:"rxPackets"`
	Sent     uint64 `json:"txPackets"`
}

// Tunnels lists the tunnels of a network with their state, sorted by peer.
func (c *Conn) Tunnels(ctx context.Context, network string) ([]TunnelStatus, error) {
	res, err := c.Transact(ctx, selectOp("Interface", owned(network, roleTunnel),
		"name", "type", "options", "external_ids", "error", "ofport", "link_state", "bfd", "bfd_status", "statistics"))
	if err != nil {
		return nil, err
	}
	list := make([]TunnelStatus, 0, len(res[0].Rows))
	for _, r := range res[0].Rows {
		t := TunnelStatus{Name: r.str("name"), Peer: r.strings("external_ids")[keyPeer], Type: r.str("type"),
			Error: refusal(r), State: r.str("link_state")}
		t.Remote, _ = netip.ParseAddr(r.strings("options")["remote_ip"])
		switch {
		case t.Error != "":
			t.State = "error"
		case t.State == "":
			t.State = "down" // ovs-vswitchd has not set the column
		}
		if r.strings("bfd")["enable"] == "true" {
			s := r.strings("bfd_status")
			t.BFD, t.Diagnostic = s["state"], s["diagnostic"]
			if t.BFD == "" {
				t.BFD = "unknown"
			}
			if t.Diagnostic == "No Diagnostic" {
				t.Diagnostic = ""
			}
		}
		counts := r.counters("statistics")
		t.Received, t.Sent = counts["rx_packets"], counts["tx_packets"]
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b TunnelStatus) int { return strings.Compare(a.Peer, b.Peer) })
	return list, nil
}

// A BadPort is an interface in OVSDB, ours or another's, that OVS has refused.
type BadPort struct {
	Name, Error string
	// Network is the network that owns the port; "" means that it is not ours.
	Network string
	// BootID is the boot in which a port of a container of ours was made; "" is no
	// such port.
	BootID string
}

// BadPorts lists the interfaces that OVS has refused, sorted by name.
func (c *Conn) BadPorts(ctx context.Context) ([]BadPort, error) {
	res, err := c.Transact(ctx, selectOp("Interface", nil, "name", "error", "ofport", "external_ids"))
	if err != nil {
		return nil, err
	}
	var list []BadPort
	for _, r := range res[0].Rows {
		if text := refusal(r); text != "" {
			ids := r.strings("external_ids")
			list = append(list, BadPort{Name: r.str("name"), Error: text, Network: ids[keyNetwork], BootID: ids[keyBootID]})
		}
	}
	slices.SortFunc(list, func(a, b BadPort) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// VswitchdVersion is the version line of the ovs-vswitchd that serves the database
// behind socket, such as "ovs-vswitchd (Open vSwitch) 3.1.0".
func VswitchdVersion(ctx context.Context, socket string) (string, error) {
	text, err := call(ctx, socket, "version")
	line, _, _ := strings.Cut(text, "\n")
	return line, err
}

// DatapathType is the column datapath_type of a bridge; "" is OVS's default, the
// kernel's datapath. found is false where there is no such bridge.
func (c *Conn) DatapathType(ctx context.Context, bridge string) (typ string, found bool, err error) {
	res, err := c.Transact(ctx, selectOp("Bridge", where("name", ovsdb.ConditionEqual, bridge), "datapath_type"))
	if err != nil || len(res[0].Rows) == 0 {
		return "", false, err
	}
	return res[0].Rows[0].str("datapath_type"), true, nil
}
