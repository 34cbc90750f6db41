package ovs

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovn-org/libovsdb/ovsdb"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// Backend is the state.Backend of state.Bridge, Tunnel, Port, Flows and FDB for one
// network. Apply needs the UUIDs that Observe has read before it.
type Backend struct {
	conn    *Conn
	network string
	// roles are those of the rows that Observe reads also where they are not wanted.
	roles []string
	// ports are the UUIDs of port rows by name, as last observed.
	ports map[string]string
	// fdb and flows are the entries and tables that are wanted, as last observed.
	fdb   []state.FDB
	flows []state.Flows
	// brief: see Brief.
	brief bool
	// secrets are those of what is wanted, as last read.
	secrets secrets
	// asked is what Ask has sent for the next Observe; nil is nothing.
	asked *questions
}

// questions have been sent to OVS; their answers have not been read.
type questions struct {
	ops      []ovsdb.Operation
	rows     *Pending
	switches <-chan map[string]switchState
}

// NewBackend returns the backend of network over an open connection.
func NewBackend(c *Conn, network string) *Backend {
	return &Backend{conn: c, network: network, roles: []string{roleBridge, roleTransit, roleTunnel}, ports: map[string]string{}}
}

// NewBridgeBackend is NewBackend without tunnels: Observe does not read them.
func NewBridgeBackend(c *Conn, network string) *Backend {
	b := NewBackend(c, network)
	b.roles = []string{roleBridge, roleTransit}
	return b
}

// NewPortBackend is NewBackend for state.Port alone: Observe reads only the wanted
// ports, by their names.
func NewPortBackend(c *Conn, network string) *Backend {
	b := NewBackend(c, network)
	b.roles = nil
	return b
}

// Brief makes Observe believe a state.Flows that has as many flows as it should, and one
// of them with the right cookie: they were made together. To look at the cookie of each
// takes ovs-vswitchd, of 10,000, as long as making a container's port.
func (b *Backend) Brief() { b.brief = true }

// rows are the rows that one Observe has read.
type rows struct {
	bridges []Row
	// port finds a Port by name.
	port map[string]Row
	// bridgeOf tells the bridge of a port's UUID.
	bridgeOf map[string]string
	// iface finds an Interface by name.
	iface map[string]Row
	// switches are the flows and FDB entries of bridges, by name.
	switches map[string]switchState
}

// Ask sends the requests of the next Observe, which then only reads the answers:
// ovs-vswitchd does not answer while it makes a port, so they are sent before. objs
// must have all bridges and ports that Observe will get; it may have others.
func (b *Backend) Ask(ctx context.Context, objs ...state.Object) error {
	q := questions{ops: b.selects(objs), switches: b.askSwitches(ctx, objs)}
	var err error
	if q.rows, err = b.conn.Start(ctx, q.ops...); err == nil {
		b.asked = &q
	}
	return err
}

// Observe implements state.Backend. It returns only those ports of containers that
// want has.
func (b *Backend) Observe(ctx context.Context, want state.Set) (state.Set, error) {
	var asks []state.Object
	b.fdb, b.secrets = nil, secrets{}
	for _, o := range want {
		if err := b.secrets.read(o); err != nil {
			return nil, err
		}
		switch o := o.(type) {
		case state.Bridge, state.Port:
			asks = append(asks, o)
		case state.FDB:
			b.fdb = append(b.fdb, o)
		}
	}
	if b.asked == nil {
		if err := b.Ask(ctx, asks...); err != nil {
			return nil, err
		}
	}
	q := b.asked
	b.asked = nil
	counted := b.count(ctx, want)
	r, err := b.read(ctx, q)
	s, tables := <-q.switches, <-counted
	if err != nil {
		return nil, err
	}
	r.switches = s
	have := state.Set{}
	for _, row := range r.bridges {
		if o := b.bridge(row, r, want); o != nil && b.roles != nil {
			have.Put(o)
		}
	}
	for _, row := range r.port {
		b.ports[row.str("name")] = row.uuid("_uuid")
		if o := b.port(row, r, want); o != nil {
			have.Put(o)
		}
	}
	for _, f := range b.fdb {
		if o, ok := r.fdb(f); ok {
			have.Put(o)
		}
	}
	have.Put(tables...)
	return have, nil
}

// selects ask OVSDB for the network's rows and those of objs.
func (b *Backend) selects(objs []state.Object) []ovsdb.Operation {
	bridge := []string{"_uuid", "name", "ports", "datapath_type", "fail_mode", "controller", "stp_enable", "rstp_enable",
		"other_config", "external_ids"}
	port := []string{"_uuid", "name", "tag", "vlan_mode", "protected", "external_ids"}
	iface := []string{"name", "type", "options", "mac", "mtu_request", "ofport", "ofport_request", "error", "bfd", "external_ids"}
	ours := where("external_ids", ovsdb.ConditionIncludes, ovsMap(map[string]string{keyNetwork: b.network}))
	ops := []ovsdb.Operation{selectOp("Bridge", ours, bridge...)}
	for _, role := range b.roles {
		ops = append(ops, selectOp("Port", owned(b.network, role), port...), selectOp("Interface", owned(b.network, role), iface...))
	}
	for _, o := range objs {
		id := o.ID()
		byName := where("name", ovsdb.ConditionEqual, id.Name)
		switch id.Kind {
		case state.KindBridge:
			ops = append(ops, selectOp("Bridge", byName, bridge...), selectOp("Port", byName, port...), selectOp("Interface", byName, iface...))
		case state.KindPort:
			ops = append(ops, selectOp("Port", byName, port...), selectOp("Interface", byName, iface...))
		}
	}
	return ops
}

func (b *Backend) read(ctx context.Context, q *questions) (*rows, error) {
	res, err := q.rows.Results(ctx)
	if err != nil {
		return nil, err
	}
	r := &rows{bridgeOf: map[string]string{}, port: map[string]Row{}, iface: map[string]Row{}}
	for i, op := range q.ops {
		for _, row := range res[i].Rows {
			switch op.Table {
			case "Bridge":
				r.bridges = append(r.bridges, row)
				for _, id := range row.uuids("ports") {
					r.bridgeOf[id] = row.str("name")
				}
			case "Port":
				r.port[row.str("name")] = row
			case "Interface":
				r.iface[row.str("name")] = row
			}
		}
	}
	return r, b.unwantedRows(ctx, r)
}

// unwantedRows reads the bridges of ports that are not on a bridge of the network.
func (b *Backend) unwantedRows(ctx context.Context, r *rows) error {
	var ops []ovsdb.Operation
	var ids []string
	for _, row := range r.port {
		if id := row.uuid("_uuid"); r.bridgeOf[id] == "" {
			ids = append(ids, id)
			ops = append(ops, selectOp("Bridge", where("ports", ovsdb.ConditionIncludes, ovsSet(uuidOf(id))), "name"))
		}
	}
	if len(ops) == 0 {
		return nil
	}
	res, err := b.conn.Transact(ctx, ops...)
	if err != nil {
		return err
	}
	for i, id := range ids {
		for _, row := range res[i].Rows {
			r.bridgeOf[id] = row.str("name")
		}
	}
	return nil
}

func (b *Backend) bridge(row Row, r *rows, want state.Set) state.Object {
	name, owner := row.str("name"), row.strings("external_ids")[keyNetwork]
	asked, wanted := want[state.ID{Kind: state.KindBridge, Name: name}].(state.Bridge)
	switch {
	case wanted && asked.Adopted && owner == "":
		return asked
	case owner == b.network:
		return state.Bridge{
			Network: owner, Name: name, DatapathType: row.str("datapath_type"), FailMode: row.str("fail_mode"),
			HWAddr: row.strings("other_config")["hwaddr"], MACTable: macTable(row, asked.MACTable), MTU: atom[int](r.iface[name], "mtu_request"),
			Controller: len(row.uuids("controller")) > 0, SpanningTree: atom[bool](row, "stp_enable") || atom[bool](row, "rstp_enable"),
			Flows: r.switches[name].flows,
			Error: wrong(r.port[name], r.iface[name], "internal"),
		}
	case wanted:
		what := "an OVS bridge that is not ours (adoptBridge would use it as it is)"
		if b, ok := want[state.ID{Kind: state.KindBridge, Name: strings.TrimSuffix(name, config.TransitLink(""))}]; ok && b != asked {
			what = "an OVS bridge that is not ours, where the tunnels of this network are to be" // only containers can be on another's
		}
		if owner != "" {
			what = fmt.Sprintf("the OVS bridge of network %q", owner)
		}
		return state.Foreign{Want: asked, Have: what}
	}
	return nil
}

// port makes the object of a Port and its Interface.
func (b *Backend) port(row Row, r *rows, want state.Set) state.Object {
	name, ids := row.str("name"), row.strings("external_ids")
	iface := r.iface[name]
	if ids[keyNetwork] != b.network {
		return b.taken(row, r, want)
	}
	bridge, ok := r.bridgeOf[row.uuid("_uuid")]
	if !ok {
		bridge = "?"
	}
	var o state.Object
	switch ids[keyRole] {
	case roleTransit:
		o = state.Bridge{Network: b.network, Name: name, PortOf: bridge}
	case roleTunnel:
		asked, _ := want[state.ID{Kind: state.KindTunnel, Name: name}].(state.Tunnel)
		o = b.tunnel(row, iface, bridge, asked)
	case roleContainer:
		at := iface.strings("external_ids")
		o = state.Port{Network: b.network, Name: name, Bridge: bridge, ContainerID: at[keyContainerID], IfName: at[keyIfName],
			Protected: atom[bool](row, "protected"), Error: wrong(row, iface, "")}
	}
	return o
}

// taken returns a state.Foreign for a port that is not the network's and has the
// name of a wanted port or bridge.
func (b *Backend) taken(row Row, r *rows, want state.Set) state.Object {
	name, owner := row.str("name"), row.strings("external_ids")[keyNetwork]
	bridge := r.bridgeOf[row.uuid("_uuid")]
	if bridge == name {
		return nil // the internal port of a bridge, see Backend.bridge
	}
	what := fmt.Sprintf("a port of OVS bridge %s that is not ours", bridge)
	if owner != "" {
		what = fmt.Sprintf("a port of OVS bridge %s, of network %q", bridge, owner)
	}
	for _, kind := range []state.Kind{state.KindBridge, state.KindPort} {
		if asked, ok := want[state.ID{Kind: kind, Name: name}]; ok {
			return state.Foreign{Want: asked, Have: what}
		}
	}
	return nil
}

// wrongNumber begins the Error of a port with another OpenFlow number than wanted.
const wrongNumber = "OVS gave it the OpenFlow number"

func (b *Backend) tunnel(row, iface Row, bridge string, asked state.Tunnel) state.Tunnel {
	opts := iface.strings("options")
	t := state.Tunnel{Network: b.network, Name: row.str("name"), Bridge: bridge, Type: iface.str("type"),
		Key: opts["key"], Csum: opts["csum"] == "true", BFD: iface.strings("bfd")["enable"] == "true",
		OFPort: atom[int](iface, "ofport_request"), Peer: iface.strings("external_ids")[keyPeer], Error: wrong(row, iface, "")}
	remote := opts["remote_ip"]
	t.Remote, _ = netip.ParseAddr(remote)
	switch number := atom[int](iface, "ofport"); {
	case t.Error != "":
	case !t.Remote.IsValid() && remote != "flow":
		t.Error = "its remote_ip is " + cut([]byte(remote))
	case t.OFPort != 0 && number > 0 && number != t.OFPort:
		t.Error = fmt.Sprintf("%s %d", wrongNumber, number)
	}
	t.Local, _ = netip.ParseAddr(opts["local_ip"])
	if port, err := strconv.ParseUint(opts["dst_port"], 10, 16); err == nil {
		t.DstPort = uint16(port)
	}
	if !atom[bool](row, "protected") {
		t.Error = "the port is not protected: frames loop"
	}
	b.options(&t, opts, asked)
	return t
}

// options are a tunnel's further options, compared with those that are asked for.
func (b *Backend) options(t *state.Tunnel, opts map[string]string, asked state.Tunnel) {
	t.Secrets = asked.Secrets
	for _, o := range state.OptionLines(asked.Secrets) {
		if opts[o.Name] != b.secrets[o.Value] {
			t.Error = o.Name + " is not as in " + o.Value
		}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(opts)) { // as a configuration has them: '=' sorts behind digits
		switch {
		case slices.Contains(ourOptions, name) || state.HasOption(asked.Secrets, name):
		case state.HasOption(asked.Options, name):
			lines = append(lines, name+"="+opts[name])
		default:
			lines = append(lines, name)
		}
	}
	t.Options = strings.Join(lines, "\n")
}

// macTable is the size of a bridge's table of MAC addresses; 0 if none is wanted.
func macTable(row Row, want int) int {
	if want == 0 {
		return 0
	}
	n, _ := strconv.Atoi(row.strings("other_config")["mac-table-size"])
	return n
}

// otherConfig are the keys of a bridge's other_config that are ours.
func otherConfig(b state.Bridge) map[string]string {
	m := map[string]string{"hwaddr": b.HWAddr}
	if b.MACTable != 0 {
		m["mac-table-size"] = strconv.Itoa(b.MACTable)
	}
	return m
}

// wrong is the Error of a port: what differs without an attribute of its object.
func wrong(row, iface Row, kind string) string {
	switch {
	case row == nil || iface == nil:
		return "its port or interface is not ours"
	case kind != "" && iface.str("type") != kind:
		return "its interface is of type " + iface.str("type")
	}
	if tags := row.set("tag"); len(tags) != 1 || atom[int](row, "tag") != 0 {
		return fmt.Sprintf("the port's tag is %s, not 0", strings.Trim(cut(slices.Concat(row["tag"])), `"`))
	}
	if mode := row.str("vlan_mode"); mode != "access" {
		return fmt.Sprintf("the port's vlan_mode is %q, not access", mode)
	}
	return refusal(iface)
}
