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

// A BridgeInfo is the state of a containers' bridge that ADD needs.
type BridgeInfo struct {
	// UUID of the bridge's row; "" means that there is no such bridge.
	UUID string
	// Network is the network that owns the bridge; "" is none of ours.
	Network string
	// Datapath is the column datapath_type; "" is OVS's default.
	Datapath string
	// SpanningTree: STP or RSTP is enabled. A port that is made then gets no
	// broadcasts, also after they are disabled.
	SpanningTree bool
	// TunnelsVersion is the column _version of the tunnels' bridge, which changes
	// with each change of the row (RFC 7047, section 3.2); "" where tunnels and
	// containers share one bridge.
	TunnelsVersion string
	// PortTaken: a port of the asked name exists.
	PortTaken bool
	// TakenBy is the network that owns that port; "" means that it is not ours.
	TakenBy string
	// NextCfg and CurCfg are OVS's columns: the number of the last request to
	// ovs-vswitchd, and of the last that it has carried out.
	NextCfg, CurCfg int
}

// Bridge reads the containers' bridge called bridge, the tunnels' bridge called
// tunnels, and whether a port called port exists, in one transaction.
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

// AddPort sends two transactions: added makes the container's port, waited waits in
// the database until ovs-vswitchd has attached it. It does not wait for the replies:
// the caller sets the container's addresses meanwhile and then calls WaitPortAdded.
// bridgeUUID is the UUID of p.Bridge.
func (c *Conn) AddPort(ctx context.Context, p state.Port, bridgeUUID, bootID string) (added, waited *Pending, err error) {
	ops := insertPort(p.Name, "new", containerIDs(p, bootID), protectedPort(p.Protected), ovsdb.Row{})
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

// WaitPortAdded waits for the replies to AddPort. The error wraps ErrUnavailable
// where ovs-vswitchd did not attach the port in time, and ErrRefused, with OVS's
// text, where it refused.
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

// DelPorts removes ports of network by name and returns the names of those that
// existed. Ports of others stay.
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
				// WaitReleased needs it to tell when ovs-vswitchd has detached them.
				c.nextCfg, err = c.send(ctx, nil)
				return gone, err
			}
		}
	}
	return gone, nil
}

// WaitReleased waits until ovs-vswitchd has carried out all requests that it had when
// b was read. On a bridge of the userspace datapath, a port that DelPorts has removed
// is detached only then: a new link of the same name would be taken for the old one
// and get no traffic. The kernel datapath detaches a port when its link goes, so that
// there is nothing to wait for.
func (c *Conn) WaitReleased(ctx context.Context, b BridgeInfo) error {
	if b.Datapath != "netdev" || b.CurCfg >= b.NextCfg {
		return nil
	}
	return c.waitApplied(ctx, b.NextCfg, 0)
}

// removePorts returns the operations that remove ports from their bridges; the rows
// go with their last reference (RFC 7047, section 3.2, isRoot).
func removePorts(uuids []string) []ovsdb.Operation {
	var ops []ovsdb.Operation
	for _, id := range uuids {
		set := ovsSet(uuidOf(id))
		ops = append(ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: "Bridge", Where: where("ports", ovsdb.ConditionIncludes, set),
			Mutations: []ovsdb.Mutation{*ovsdb.NewMutation("ports", ovsdb.MutateOperationDelete, set)}})
	}
	return ops
}

// A ContainerPort is the OVS port of a container.
type ContainerPort struct {
	// Name is the port's, and that of the host end of the veth pair.
	Name string
	// ContainerID and IfName are those of the CNI call, BootID that of the boot in
	// which the port was made.
	ContainerID, IfName, BootID string
	// Error is OVS's error about the port; "" is none.
	Error string
}

// FromPreviousBoot reports whether the port was made in another boot of this host,
// and so has lost its link. It is false where the kernel has no boot id.
func (p ContainerPort) FromPreviousBoot() bool { return BootID() != "" && p.BootID != BootID() }

// ContainerPorts lists the ports of network's containers, sorted by name.
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

// setKeys returns the mutations that set keys of a map column: OVSDB's insert alone
// does not overwrite existing keys.
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

// insertPort returns the operations that make a Port and its Interface, with the
// same name and external_ids. The Port's named UUID is "p" + id.
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
