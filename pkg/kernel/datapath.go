package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Datapath is one of Open vSwitch's in this network namespace, and what
// became of packets that its flows did not know: Missed counts them, Lost those
// that no ovs-vswitchd took.
type Datapath struct {
	Name         string
	Missed, Lost uint64
}

// From linux/openvswitch.h.
const (
	datapathFamily  = "ovs_datapath"
	datapathVersion = 2
	datapathGet     = 3 // OVS_DP_CMD_GET
	datapathName    = 1 // OVS_DP_ATTR_NAME
	datapathStats   = 3 // OVS_DP_ATTR_STATS: hit, missed, lost, flows
)

// Datapaths lists the datapaths of the kernel module openvswitch; none where
// that is not loaded.
func Datapaths(ctx context.Context) ([]Datapath, error) {
	c, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, fmt.Errorf("generic netlink: %w", err)
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	family, err := genericFamily(c, datapathFamily)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// Behind the generic header stands the index of one datapath, or 0.
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(family), Flags: netlink.Request | netlink.Dump},
		Data:   []byte{datapathGet, datapathVersion, 0, 0, 0, 0, 0, 0},
	})
	if err != nil {
		return nil, fmt.Errorf("datapaths of Open vSwitch: %w", err)
	}
	var list []Datapath
	for _, m := range msgs {
		var d Datapath
		if len(m.Data) < 8 {
			continue
		}
		attrs, err := netlink.NewAttributeDecoder(m.Data[8:])
		if err != nil {
			return nil, fmt.Errorf("datapaths of Open vSwitch: %w", err)
		}
		for attrs.Next() {
			switch b := attrs.Bytes(); {
			case attrs.Type() == datapathName:
				d.Name = attrs.String()
			case attrs.Type() == datapathStats && len(b) >= 24:
				d.Missed, d.Lost = binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:])
			}
		}
		list = append(list, d)
	}
	return list, nil
}

// genericFamily is the number of a family of generic netlink; the error wraps
// fs.ErrNotExist where the kernel has no such family.
func genericFamily(c *netlink.Conn, name string) (uint16, error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: unix.CTRL_ATTR_FAMILY_NAME, Data: append([]byte(name), 0)}})
	if err != nil {
		return 0, err
	}
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.GENL_ID_CTRL, Flags: netlink.Request},
		Data:   append([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, attrs...),
	})
	if err != nil {
		return 0, fmt.Errorf("generic netlink: family %s: %w", name, err)
	}
	for _, m := range msgs {
		if len(m.Data) < 4 {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		for d.Next() {
			if d.Type() == unix.CTRL_ATTR_FAMILY_ID {
				return d.Uint16(), nil
			}
		}
	}
	return 0, fmt.Errorf("generic netlink: family %s: %w", name, fs.ErrNotExist)
}
