package ovs

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ovn-org/libovsdb/ovsdb"
)

// Watch connects to the unix socket path and calls changed when it is connected, and
// whenever a bridge or tunnel of the network was made, changed or removed in OVSDB.
// Changes of containers' ports and of statistics do not count. It returns when ctx
// or the connection ends.
func Watch(ctx context.Context, path, network string, changed func()) error {
	return monitor(ctx, path, monitored(network), changed)
}

// WatchPorts is as Watch, of containers' ports: of what somebody changes of one, of
// those that are removed, and of those that a bridge gets or loses.
func WatchPorts(ctx context.Context, path, network string, changed func()) error {
	return monitor(ctx, path, map[string]any{
		"Bridge": selected([]string{"ports"}, owned(network, roleBridge)),
		"Port":   selected([]string{"name", "tag", "vlan_mode", "protected", "external_ids"}, owned(network, roleContainer)),
	}, changed)
}

func monitor(ctx context.Context, path string, what map[string]any, changed func()) error {
	c, err := Dial(ctx, path)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, c.Close)()
	defer c.Close()
	// Unlike a transaction's, these replies have no end.
	c.dec = json.NewDecoder(c.conn)
	msg, err := json.Marshal(map[string]any{"id": 0, "method": "monitor_cond", "params": []any{database, nil, what}})
	if err != nil {
		return err
	}
	if _, err = c.conn.Write(msg); err == nil {
		err = c.notifications(changed)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.readError(ctx, err)
}

// monitored are the rows and columns to watch, as parameters of monitor_cond
// (ovsdb-server(7)): rows that one of the conditions matches.
func monitored(network string) map[string]any {
	bridge, tunnel := owned(network, roleBridge), owned(network, roleTunnel)
	return map[string]any{
		"Bridge": selected([]string{"name", "datapath_type", "fail_mode", "other_config"},
			where("external_ids", ovsdb.ConditionIncludes, ovsMap(map[string]string{keyNetwork: network}))),
		"Port":      selected([]string{"name", "tag", "vlan_mode", "protected"}, bridge, tunnel),
		"Interface": selected([]string{"name", "type", "options", "mac", "mtu_request", "ofport", "error"}, bridge, tunnel),
	}
}

// selected are the rows of one table that one of the conditions matches, for monitor_cond.
func selected(columns []string, conditions ...[]ovsdb.Condition) []any {
	return []any{map[string]any{"columns": columns, "where": slices.Concat(conditions...), "select": map[string]bool{"initial": false}}}
}

// notifications reads what the server sends, and answers its echo requests.
func (c *Conn) notifications(changed func()) error {
	for {
		var m struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
			Error  json.RawMessage `json:"error"`
		}
		if err := c.dec.Decode(&m); err != nil {
			return err
		}
		switch {
		case m.Method == "echo":
			echo, err := json.Marshal(map[string]any{"id": m.ID, "result": m.Params, "error": nil})
			if err != nil {
				return err
			}
			if _, err := c.conn.Write(echo); err != nil {
				return err
			}
		case len(m.Error) > 0 && string(m.Error) != "null":
			return fmt.Errorf("monitor_cond: %s", cut(m.Error))
		default:
			changed()
		}
	}
}

// WatchVswitchd connects to the ovs-vswitchd that serves the database behind the unix
// socket path and calls changed once: a new ovs-vswitchd has lost the flows and FDB
// entries of the one before. It returns when ctx or ovs-vswitchd ends.
func WatchVswitchd(ctx context.Context, path string, changed func()) error {
	c, err := DialControl(ctx, path)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, c.Close)()
	changed()
	_, err = c.conn.Read(make([]byte, 1)) // nothing is sent, so that it returns when the connection ends
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, c, err)
}
