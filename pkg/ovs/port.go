package ovs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ovn-org/libovsdb/ovsdb"

	"ovs-gre-cni/pkg/state"
)

// A BridgeInfo is what ADD must know of its bridge.
type BridgeInfo struct {
	// UUID of the bridge's row; "" means that there is no such bridge.
	UUID string
	// Network that owns the bridge; "" means none of ours.
	Network string
	// Datapath is the column datapath_type; "" is OVS's own.
	Datapath string
	// SpanningTree: it takes part in a spanning tree. A port that is made then
	// gets no broadcasts, also once it does not any more.
	SpanningTree bool
	// TunnelsVersion is _version of the row of the tunnels' bridge, where that is
	// another: it changes with each change of the row (RFC 7047, section 3.2).
	TunnelsVersion string
	// PortTaken: a port of the asked name exists.
	PortTaken bool
	// TakenBy is the network that owns that port; "" means that it is not ours.
	TakenBy string
	// NextCfg and CurCfg are OVS's columns: what ovs-vswitchd was asked for, and
	// what it has done of it.
	NextCfg, CurCfg int
}

// Bridge looks for a containers' bridge and that of the tunnels, and whether the
// port named port exists.
func (c *Conn) Bridge(ctx context.Context, bridge, tunnels, port string) (BridgeInfo, error) {
	var b BridgeInfo
	res, err := c.Transact(ctx,
		selectOp("Bridge", where("name", ovsdb.ConditionEqual, bridge), "_uuid", "datapath_type", "external_ids", "stp_enable", "rstp_enable"),
		selectOp("Port", where("name", ovsdb.ConditionEqual, port), "external_ids"),
		selectOp("Open_vSwitch", nil, "next_cfg", "cur_cfg"),
		selectOp("Bridge", where("name", ovsdb.ConditionEqual, tunnels), "_version"))
	if err != nil {
		return b, err
	}
	for _, r := range res[3].Rows {
		if tunnels != bridge {
			b.TunnelsVersion = r.uuid("_version")
		}
	}
	for _, r := range res[0].Rows {
		b.UUID, b.Network, b.Datapath = r.uuid("_uuid"), r.strings("external_ids")[keyNetwork], r.str("datapath_type")
		b.SpanningTree = atom[bool](r, "stp_enable") || atom[bool](r, "rstp_enable")
	}
	for _, r := range res[1].Rows {
		b.PortTaken, b.TakenBy = true, r.strings("external_ids")[keyNetwork]
	}
	for _, r := range res[2].Rows {
		b.NextCfg, b.CurCfg = atom[int](r, "next_cfg"), atom[int](r, "cur_cfg")
	}
	return b, nil
}

// AddPort sends the container's port and waits in the database until
// ovs-vswitchd has it, both without waiting for a reply: the caller does the
// container's addresses meanwhile and then calls WaitPortAdded. bridgeUUID must be
// that of p.Bridge.
func (c *Conn) AddPort(ctx context.Context, p state.Port, bridgeUUID, bootID string) (added, waited *Pending, err error) {
	ids := map[string]string{keyNetwork: p.Network, keyRole: roleContainer,
		keyContainerID: p.ContainerID, keyIfName: p.IfName, keyBootID: bootID}
	ops := insertPort(p.Name, "new", ids,
		protectedPort(p.Protected), ovsdb.Row{})
	ops = append(ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge",
		Where:     where("_uuid", ovsdb.ConditionEqual, uuidOf(bridgeUUID)),
		Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", ovsdb.MutateOperationInsert, ovsSet(uuidOf("pnew")))}})
	if added, err = c.Start(ctx, ops...); err != nil {
		return nil, nil, err
	}
	timeout := waitMillis(ctx)
	byName := where("name", ovsdb.ConditionEqual, p.Name)
	waited, err = c.Start(ctx,
		ovsdb.Operation{Op: ovsdb.OperationWait, Table: "Interface", Where: byName, Columns: []string{"ofport"},
			Until: string(ovsdb.WaitConditionNotEqual), Rows: []ovsdb.Row{{"ofport": ovsSet()}}, Timeout: &timeout},
		selectOp("Interface", byName, "ofport", "error"))
	return added, waited, err
}

// WaitPortAdded reads the replies to AddPort. The error wraps ErrUnavailable where
// ovs-vswitchd did not take the port up in time, and ErrRefused with OVS's own
// words where it would not.
func WaitPortAdded(ctx context.Context, p state.Port, added, waited *Pending) error {
	res, err := added.Results(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Noun(), err)
	}
	if res[2].Count != 1 {
		return fmt.Errorf("%s: %w: bridge %s went away meanwhile", p.Noun(), ErrUnavailable, p.Bridge)
	}
	res, err = waited.await(ctx)
	if err != nil {
		return fmt.Errorf("%s: ovs-vswitchd does not take it up: %w", p.Noun(), err)
	}
	if len(res[1].Rows) != 1 {
		return fmt.Errorf("%s: %w: it went away meanwhile", p.Noun(), ErrUnavailable)
	}
	if text := refusal(res[1].Rows[0]); text != "" {
		return fmt.Errorf("%w: %s: %s", ErrRefused, p.Noun(), text)
	}
	return nil
}

// refusal is why OVS does not have the interface, or "".
func refusal(r Row) string {
	if text := r.str("error"); text != "" {
		return brief(text)
	}
	if s := r.set("ofport"); len(s) == 1 && atom[int](r, "ofport") < 0 {
		return "no reason given (ofport -1)"
	}
	return ""
}

// DelPorts removes ports of network by name and reports which there were. What
// is absent, or another's, is left alone.
func (c *Conn) DelPorts(ctx context.Context, network string, names ...string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	var ops []ovsdb.Operation
	for _, n := range names {
		ops = append(ops, selectOp("Port", append(where("name", ovsdb.ConditionEqual, n),
			where("external_ids", ovsdb.ConditionIncludes, ovsMap(map[string]string{keyNetwork: network}))...), "_uuid", "name"))
	}
	res, err := c.Transact(ctx, ops...)
	if err != nil {
		return nil, err
	}
	var ids, gone []string
	for _, r := range res {
		for _, row := range r.Rows {
			ids, gone = append(ids, row.uuid("_uuid")), append(gone, row.str("name"))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	ops = removePorts(ids)
	for _, id := range ids {
		ops = append([]ovsdb.Operation{selectOp("Bridge", where("ports", ovsdb.ConditionIncludes, ovsSet(uuidOf(id))), "datapath_type")}, ops...)
	}
	res, err = c.Transact(ctx, ops...)
	if err != nil {
		return nil, err
	}
	for _, r := range res[:len(ids)] {
		for _, row := range r.Rows {
			if row.str("datapath_type") == "netdev" {
				// So that WaitReleased can tell when ovs-vswitchd has let go of them.
				c.nextCfg, err = c.send(ctx, nil)
				return gone, err
			}
		}
	}
	return gone, nil
}

// WaitReleased waits until ovs-vswitchd has done what it was asked for when b was
// read: on a userspace bridge, to let go of the ports that DelPorts took out. A
// link that comes back under its name before would be taken for the old one and
// left without traffic. The kernel datapath lets go when the link goes.
func (c *Conn) WaitReleased(ctx context.Context, b BridgeInfo) error {
	if b.Datapath != "netdev" || b.CurCfg >= b.NextCfg {
		return nil
	}
	return c.waitApplied(ctx, b.NextCfg, 0)
}

// removePorts takes ports out of whatever bridge holds them; the rows go with
// their last reference (RFC 7047, section 3.2, isRoot).
func removePorts(uuids []string) []ovsdb.Operation {
	var ops []ovsdb.Operation
	for _, id := range uuids {
		set := ovsSet(uuidOf(id))
		ops = append(ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge", Where: where("ports", ovsdb.ConditionIncludes, set),
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", ovsdb.MutateOperationDelete, set)}})
	}
	return ops
}

// A ContainerPort is a row of ours for a container.
type ContainerPort struct {
	Name                        string
	ContainerID, IfName, BootID string
	// Error is what OVS says against it; "" means nothing.
	Error string
}

// FromPreviousBoot reports whether the port is of another boot of this host, and so has
// lost its link. Where the kernel does not tell its boot, none is.
func (p ContainerPort) FromPreviousBoot() bool { return BootID() != "" && p.BootID != BootID() }

// ContainerPorts lists the ports that network's containers have.
func (c *Conn) ContainerPorts(ctx context.Context, network string) ([]*ContainerPort, error) {
	res, err := c.Transact(ctx, selectOp("Interface", owned(network, roleContainer), "name", "external_ids", "error", "ofport"))
	if err != nil {
		return nil, err
	}
	var list []*ContainerPort
	for _, r := range res[0].Rows {
		ids := r.strings("external_ids")
		list = append(list, &ContainerPort{Name: r.str("name"), ContainerID: ids[keyContainerID], IfName: ids[keyIfName],
			BootID: ids[keyBootID], Error: refusal(r)})
	}
	slices.SortFunc(list, func(a, b *ContainerPort) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// setKeys overwrites keys of a column that maps strings to strings: OVSDB's
// insert leaves a key alone that is there.
func setKeys(column string, m map[string]string) []ovsdb.Mutation {
	var keys []any
	for k := range m {
		keys = append(keys, k)
	}
	return []ovsdb.Mutation{
		*ovsdb.NewMutation(column, ovsdb.MutateOperationDelete, ovsSet(keys...)),
		*ovsdb.NewMutation(column, ovsdb.MutateOperationInsert, ovsMap(m)),
	}
}

// insertPort makes a Port and its Interface, of one name and with the same
// external_ids; the Port's UUID is named "p" + id in the transaction.
func insertPort(name, id string, ids map[string]string, port, iface ovsdb.Row) []ovsdb.Operation {
	iface["name"], iface["external_ids"] = name, ovsMap(ids)
	port["name"], port["external_ids"], port["interfaces"] = name, ovsMap(ids), ovsSet(uuidOf("i"+id))
	return []ovsdb.Operation{
		{Op: ovsdb.OperationInsert, Table: "Interface", Row: iface, UUIDName: "i" + id},
		{Op: ovsdb.OperationInsert, Table: "Port", Row: port, UUIDName: "p" + id},
	}
}

// waitMillis is how long an OVSDB wait may take so that its reply still comes
// before ctx ends; 10 s where ctx has no deadline.
func waitMillis(ctx context.Context) int {
	left := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		left = time.Until(d)
	}
	return int(max(left-left/10, time.Millisecond) / time.Millisecond)
}
