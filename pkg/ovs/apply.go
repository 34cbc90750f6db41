package ovs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ovn-org/libovsdb/ovsdb"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/state"
)

// Apply implements state.Backend: one transaction, then a wait until ovs-vswitchd
// has carried it out. New bridges and ports that OVS refuses are removed again; the
// error wraps ErrRefused and has OVS's text.
func (b *Backend) Apply(ctx context.Context, changes []state.Change) error {
	plan := &plan{conn: b.conn, known: b.ports, inserted: map[string][]string{}, secrets: b.secrets}
	if plan.secrets == nil {
		plan.secrets = secrets{}
	}
	for _, c := range changes {
		if inOVSDB(c.Kind()) {
			if err := plan.secrets.read(c.New); err != nil {
				return err
			}
			plan.add(c)
		}
	}
	if !plan.empty() {
		if err := plan.detachMoved(ctx); err != nil {
			return err
		}
		if err := plan.run(ctx); err != nil {
			return err
		}
		if err := b.refused(ctx, changes); err != nil {
			return err
		}
	}
	return errors.Join(b.direct(ctx, changes), b.applyFDB(ctx, changes))
}

// inOVSDB reports whether objects of a kind are rows.
func inOVSDB(k state.Kind) bool { return k >= state.KindBridge && k <= state.KindPort }

// A plan gathers the operations of one transaction.
type plan struct {
	conn *Conn
	// known are the UUIDs of existing ports by name.
	known map[string]string
	// secrets are those of new tunnels.
	secrets secrets
	ops     []ovsdb.Operation
	// before are operations of a transaction of their own, before all others.
	before []ovsdb.Operation
	// gone are UUIDs of ports to be removed. Those of away are removed in the
	// transaction of before, because the main one makes them again.
	gone, away []string
	// inserted are the named UUIDs of new ports by bridge.
	inserted map[string][]string
	// fresh are bridges to be made, removed the names of those to be removed.
	fresh   []freshBridge
	removed []string
	count   int // of named UUIDs
	errs    []error
}

type freshBridge struct {
	state.Bridge
	id string
}

func (p *plan) empty() bool {
	return len(p.ops)+len(p.gone)+len(p.inserted)+len(p.fresh)+len(p.removed)+len(p.errs) == 0
}

func (p *plan) id() string { p.count++; return strconv.Itoa(p.count) }

func (p *plan) add(c state.Change) {
	o := c.New
	if o == nil {
		o = c.Old
	}
	if br, ok := o.(state.Bridge); ok {
		p.bridge(c, br)
		return
	}
	switch {
	case c.New == nil:
		p.leave(&p.gone, o)
	case c.Old == nil:
		p.insert(o)
	case bridgeOf(c.Old) != bridgeOf(c.New) || c.New.ID().Kind == state.KindPort || otherEnds(c):
		p.leave(&p.away, o)
		p.insert(o)
	default:
		p.update(o)
	}
}

// otherEnds reports whether a tunnel must be made again for OVS to report a
// conflict: a tunnel that is changed to the parameters of another port keeps its
// ofport, and the error column stays empty; a new one gets an error
// (tnl_port_reconfigure in ofproto/tunnel.c of OVS).
func otherEnds(c state.Change) bool {
	was, ok := c.Old.(state.Tunnel)
	now, ok2 := c.New.(state.Tunnel)
	return ok && ok2 && (was.Type != now.Type || was.Remote != now.Remote || was.Local != now.Local ||
		was.Key != now.Key || was.DstPort != now.DstPort ||
		was.OFPort != now.OFPort || strings.HasPrefix(was.Error, wrongNumber))
}

func (p *plan) leave(list *[]string, o state.Object) {
	if id := p.known[o.ID().Name]; id != "" {
		*list = append(*list, id)
	}
}

func (p *plan) bridge(c state.Change, br state.Bridge) {
	was, _ := c.Old.(state.Bridge)
	byName := where("name", ovsdb.ConditionEqual, br.Name)
	switch {
	case br.Adopted && c.New != nil:
		p.errs = append(p.errs, fmt.Errorf("%w: adoptBridge: there is no OVS bridge %s", ErrUnavailable, br.Name))
	case br.Adopted:
	case c.New == nil && br.PortOf != "":
		p.leave(&p.gone, br)
	case c.New == nil:
		p.removed = append(p.removed, br.Name)
	case was.PortOf != "":
		p.leave(&p.away, br)
		p.fresh = append(p.fresh, freshBridge{br, p.id()})
	case c.Old == nil:
		p.fresh = append(p.fresh, freshBridge{br, p.id()})
	default:
		if was.FailMode == state.FailSecure && br.FailMode != was.FailMode {
			// While the port for all peers exists, a bridge that learns would accept
			// packets of any host.
			p.leave(&p.away, state.Tunnel{Name: config.OneTunnelName(br.Network)})
		}
		if was.Flows != "" || was.FailMode != state.FailSecure && br.FailMode == state.FailSecure {
			// ovs-vswitchd empties the table when fail_mode changes, and in standalone
			// makes the flow of a new bridge. A bridge without flows accepts no packet
			// while it gets the port for all peers.
			p.before = append(p.before, ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Bridge", Where: byName,
				Row: ovsdb.Row{"fail_mode": "secure"}})
		}
		p.ops = append(p.ops,
			ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Bridge", Where: byName,
				Row: ovsdb.Row{"datapath_type": br.DatapathType, "fail_mode": br.FailMode, "controller": ovsSet(),
					"stp_enable": false, "rstp_enable": false}},
			ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge", Where: byName, Mutations: append(
				setKeys("other_config", otherConfig(br)),
				*ovsdb.NewMutation("external_ids", ovsdb.MutateOperationDelete, ovsSet(keyStamp)))},
			ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Port", Where: byName, Row: accessPort()},
			ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Interface", Where: byName, Row: ovsdb.Row{"mtu_request": br.MTU}})
	}
}

// accessPort are the columns of a port for frames without a VLAN tag.
func accessPort() ovsdb.Row { return ovsdb.Row{"tag": 0, "vlan_mode": "access"} }

// protectedPort are the columns of an accessPort that, if protected, exchanges no
// frames with other protected ports.
func protectedPort(protected bool) ovsdb.Row {
	row := accessPort()
	row["protected"] = protected
	return row
}

// columns are the columns of an object's Port and Interface, and its external_ids.
func (p *plan) columns(o state.Object) (port, iface ovsdb.Row, ids map[string]string) {
	switch o := o.(type) {
	case state.Tunnel:
		opts, bfd := map[string]string{"remote_ip": "flow"}, map[string]string{}
		if o.Remote.IsValid() {
			opts["remote_ip"] = o.Remote.String()
		}
		if o.Local.IsValid() {
			opts["local_ip"] = o.Local.String()
		}
		if o.Key != "" {
			opts["key"] = o.Key
		}
		if o.Csum {
			opts["csum"] = "true"
		}
		if o.DstPort != 0 {
			opts["dst_port"] = strconv.Itoa(int(o.DstPort))
		}
		for _, l := range state.OptionLines(o.Options) {
			opts[l.Name] = l.Value
		}
		for _, l := range state.OptionLines(o.Secrets) {
			opts[l.Name] = p.secrets[l.Value]
		}
		if o.BFD {
			bfd["enable"] = "true"
		}
		number := ovsSet()
		if o.OFPort != 0 {
			number = ovsSet(o.OFPort)
		}
		return protectedPort(true),
			ovsdb.Row{"type": o.Type, "options": ovsMap(opts), "bfd": ovsMap(bfd), "ofport_request": number},
			map[string]string{keyNetwork: o.Network, keyRole: roleTunnel, keyPeer: o.Peer}
	case state.Port:
		return protectedPort(o.Protected), ovsdb.Row{}, containerIDs(o, BootID())
	}
	return nil, nil, nil
}

func bridgeOf(o state.Object) string {
	switch o := o.(type) {
	case state.Tunnel:
		return o.Bridge
	case state.Port:
		return o.Bridge
	}
	return ""
}

func (p *plan) insert(o state.Object) {
	port, iface, ids := p.columns(o)
	id := p.id()
	p.ops = append(p.ops, insertPort(o.ID().Name, id, ids, port, iface)...)
	p.inserted[bridgeOf(o)] = append(p.inserted[bridgeOf(o)], "p"+id)
}

func (p *plan) update(o state.Object) {
	port, iface, ids := p.columns(o)
	byName := where("name", ovsdb.ConditionEqual, o.ID().Name)
	p.ops = append(p.ops,
		ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Port", Where: byName, Row: port},
		ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Interface", Where: byName, Row: iface},
		ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Port", Where: byName, Mutations: setKeys("external_ids", ids)},
		ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Interface", Where: byName, Mutations: setKeys("external_ids", ids)})
}

// detachMoved sends the operations of before, and removes the ports of away, in a
// transaction of its own, and waits until ovs-vswitchd has carried it out:
// ovs-vswitchd does not attach a device again if it only sees its row change.
func (p *plan) detachMoved(ctx context.Context) error {
	if err := errors.Join(p.errs...); err != nil {
		return err
	}
	if len(p.away)+len(p.before) == 0 {
		return nil
	}
	return p.conn.commit(ctx, append(p.before, removePorts(p.away)...))
}

// run sends the transaction and waits until ovs-vswitchd has carried it out.
func (p *plan) run(ctx context.Context) error {
	ops := p.ops
	for bridge, ids := range p.inserted {
		var set []any
		for _, id := range ids {
			set = append(set, uuidOf(id))
		}
		i := indexBridge(p.fresh, bridge)
		if i >= 0 {
			ops = append(ops, p.fresh[i].insert(set)...)
			p.fresh = append(p.fresh[:i], p.fresh[i+1:]...)
			continue
		}
		ops = append(ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge", Where: where("name", ovsdb.ConditionEqual, bridge),
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", ovsdb.MutateOperationInsert, ovsSet(set...))}})
	}
	for _, br := range p.fresh {
		ops = append(ops, br.insert(nil)...)
	}
	ops = append(ops, removePorts(p.gone)...)
	removed, err := p.removedBridges(ctx)
	if err != nil {
		return err
	}
	if len(ops) > len(p.gone) {
		return p.conn.commit(ctx, append(ops, removed...))
	}
	// Rows are only removed. ovs-vswitchd removes their links as soon as it can;
	// if it does not run, when it is started.
	cfg, err := p.conn.send(ctx, append(ops, removed...))
	if err == nil {
		err = p.conn.waitApplied(ctx, cfg, time.Second)
	}
	if errors.Is(err, errNotApplied) {
		return nil
	}
	return err
}

// errNotApplied is wrapped by errors about a transaction that is committed and that
// ovs-vswitchd has not carried out.
var errNotApplied = fmt.Errorf("%w: ovs-vswitchd does not do what OVSDB says", ErrUnavailable)

func indexBridge(list []freshBridge, name string) int {
	for i, b := range list {
		if b.Name == name {
			return i
		}
	}
	return -1
}

// insert returns the operations that make the bridge with its internal port and
// other new ports.
func (b freshBridge) insert(ports []any) []ovsdb.Operation {
	ids := map[string]string{keyNetwork: b.Network, keyRole: roleBridge}
	ops := insertPort(b.Name, b.id, ids, accessPort(), ovsdb.Row{"type": "internal", "mtu_request": b.MTU})
	row := ovsdb.Row{
		"name": b.Name, "datapath_type": b.DatapathType, "fail_mode": b.FailMode,
		"other_config": ovsMap(otherConfig(b.Bridge)), "external_ids": ovsMap(ids),
		"ports": ovsSet(append([]any{uuidOf("p" + b.id)}, ports...)...),
	}
	return append(ops,
		ovsdb.Operation{Op: ovsdb.OperationInsert, Table: "Bridge", Row: row, UUIDName: "b" + b.id},
		ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Open_vSwitch",
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("bridges", ovsdb.MutateOperationInsert, ovsSet(uuidOf("b"+b.id)))}})
}

func (p *plan) removedBridges(ctx context.Context) ([]ovsdb.Operation, error) {
	var ops []ovsdb.Operation
	for _, name := range p.removed {
		res, err := p.conn.Transact(ctx, selectOp("Bridge", where("name", ovsdb.ConditionEqual, name), "_uuid"))
		if err != nil {
			return nil, err
		}
		for _, r := range res[0].Rows {
			ops = append(ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Open_vSwitch",
				Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("bridges", ovsdb.MutateOperationDelete, ovsSet(uuidOf(r.uuid("_uuid"))))}})
		}
	}
	return ops, nil
}

// commit sends ops and waits until ovs-vswitchd has carried them out, as ovs-vsctl
// does: next_cfg counts requests, cur_cfg is the last that was carried out
// (ovs-vswitchd.conf.db(5)).
func (c *Conn) commit(ctx context.Context, ops []ovsdb.Operation) error {
	cfg, err := c.send(ctx, ops)
	if err != nil {
		return err
	}
	return c.waitApplied(ctx, cfg, 0)
}

// send sends ops and returns the cur_cfg that ovs-vswitchd has once it has carried
// them out.
func (c *Conn) send(ctx context.Context, ops []ovsdb.Operation) (cfg int, err error) {
	ops = append(ops, incrementNextCfg(), selectOp("Open_vSwitch", nil, "next_cfg"))
	res, err := c.Transact(ctx, ops...)
	if err != nil {
		return 0, err
	}
	if rows := res[len(res)-1].Rows; len(rows) == 1 {
		return atom[int](rows[0], "next_cfg"), nil
	}
	return 0, fmt.Errorf("%w: OVSDB %s has no Open_vSwitch row: ovs-vsctl init makes it", ErrUnavailable, c.path)
}

// incrementNextCfg is the operation that makes ovs-vswitchd set cur_cfg when it has
// carried out the transaction.
func incrementNextCfg() ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Open_vSwitch",
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("next_cfg", ovsdb.MutateOperationAdd, 1)}}
}

// waitApplied waits until ovs-vswitchd's cur_cfg is at least cfg, until ctx ends, or
// most is over, if that is not 0.
func (c *Conn) waitApplied(ctx context.Context, cfg int, most time.Duration) error {
	timeout := waitMillis(ctx)
	if most > 0 {
		timeout = min(timeout, int(most/time.Millisecond))
	}
	p, err := c.Start(ctx, ovsdb.Operation{Op: ovsdb.OperationWait, Table: "Open_vSwitch",
		Where: where("cur_cfg", ovsdb.ConditionLessThan, cfg), Columns: []string{"cur_cfg"},
		Until: string(ovsdb.WaitConditionEqual), Timeout: &timeout})
	if err == nil {
		_, err = p.await(ctx)
	}
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", errNotApplied, err)
	}
	return err
}

// refused looks for interfaces that OVS has refused and removes those that are new.
func (b *Backend) refused(ctx context.Context, changes []state.Change) error {
	var ops []ovsdb.Operation
	var of []state.Change
	for _, c := range changes {
		if c.New != nil && inOVSDB(c.Kind()) {
			of = append(of, c)
			ops = append(ops, selectOp("Interface", where("name", ovsdb.ConditionEqual, c.New.ID().Name), "error", "ofport"))
		}
	}
	if len(ops) == 0 {
		return nil
	}
	res, err := b.conn.Transact(ctx, ops...)
	if err != nil {
		return err
	}
	var errs []error
	var bridges, ports []string
	for i, r := range res {
		for _, row := range r.Rows {
			text := refusal(row)
			if text == "" && len(row.set("ofport")) == 0 {
				text = "ovs-vswitchd did not make it (its log says why)"
			}
			if text == "" {
				continue
			}
			errs = append(errs, fmt.Errorf("%w: %s: %s%s", ErrRefused, of[i].New.Noun(), text, hint(of[i].New, text)))
			if of[i].Old != nil {
				continue
			}
			if of[i].Kind() == state.KindBridge {
				bridges = append(bridges, of[i].New.ID().Name)
			} else {
				ports = append(ports, of[i].New.ID().Name)
			}
		}
	}
	if len(errs) == 0 {
		return nil
	}
	_, err = b.conn.DelPorts(ctx, b.network, ports...)
	errs = append(errs, err)
	p := &plan{conn: b.conn, removed: bridges}
	del, err := p.removedBridges(ctx)
	if err == nil && len(del) > 0 {
		_, err = b.conn.Transact(ctx, del...)
	}
	return errors.Join(append(errs, err)...)
}

// hint is what an operator can do about an error of OVS; "" is not known.
func hint(o state.Object, text string) string {
	switch o := o.(type) {
	case state.Tunnel:
		if strings.Contains(text, "File exists") {
			if !o.Remote.IsValid() {
				return fmt.Sprintf(": another network of this host has a tunnel of the same type and key for all peers: "+
					"give this network a tunnel.key of its own (it has %q)", o.Key)
			}
			return fmt.Sprintf(": another tunnel of this host has the same type, remote address and key: "+
				"give this network a tunnel.key of its own (it has %q)", o.Key)
		}
	case state.Bridge:
		if o.DatapathType != "netdev" {
			return ": is the openvswitch kernel module there? (datapathType netdev works without it)"
		}
	}
	return ""
}
