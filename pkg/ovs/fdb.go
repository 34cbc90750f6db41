package ovs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ovs-gre-cni/pkg/state"
)

// switchState is the part of a bridge that OVSDB does not have.
type switchState struct {
	// flows is as in state.Bridge. static are the static FDB entries without a
	// VLAN: the OpenFlow number of the port by MAC address; nil where ovs-vswitchd
	// has no such entries.
	flows  string
	static map[string]string
}

// local is how ovs-vswitchd writes the number of a bridge's internal port.
const local = "LOCAL"

// askSwitches asks ovs-vswitchd for the flows and static FDB entries of the bridges
// among objs, which OVSDB does not have. The answer is nil where ovs-vswitchd does
// not answer: they then count as wanted, and VswitchdServes returns the error.
func (b *Backend) askSwitches(ctx context.Context, objs []state.Object) <-chan map[string]switchState {
	var names []string
	var commands []Command
	for _, o := range objs {
		if o, ok := o.(state.Bridge); ok && !o.Adopted && o.FailMode != state.FailSecure { // that one has state.Flows and does not learn
			names = append(names, o.Name)
			commands = append(commands, Command{"bridge/dump-flows", o.Name}, Command{"fdb/show", o.Name})
		}
	}
	reply := make(chan map[string]switchState, 1)
	if len(names) == 0 {
		reply <- nil
		return reply
	}
	go func() {
		// fdb/add without arguments is refused as unknown, or as wrong.
		answers, err := b.call(ctx, append(commands, Command{"fdb/add"}))
		if err != nil {
			reply <- nil
			return
		}
		able := !errors.Is(answers[len(answers)-1].Err, ErrNoCommand)
		m := map[string]switchState{}
		for i, name := range names {
			s := switchState{static: map[string]string{}}
			if a := answers[2*i]; a.Err == nil {
				s.flows = foreignFlows(a.Text)
			}
			if a := answers[2*i+1]; a.Err == nil && able {
				s.static = static(a.Text)
			} else if !able {
				s.static = nil
			}
			m[name] = s
		}
		reply <- m
	}()
	return reply
}

// StaticFDB reports whether the ovs-vswitchd that serves the database behind socket
// can have static FDB entries, which OVS has since 2.16.
func StaticFDB(ctx context.Context, socket string) (bool, error) {
	_, err := call(ctx, socket, "fdb/add") // without arguments it says no more than whether it knows the command
	if errors.Is(err, ErrRefused) {
		return !errors.Is(err, ErrNoCommand), nil
	}
	return err == nil, err
}

func (b *Backend) call(ctx context.Context, commands []Command) ([]Answer, error) {
	c, err := DialControl(ctx, b.conn.path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.CallAll(ctx, commands...)
}

// foreignFlows describes the flows of a bridge other than the single flow NORMAL of a
// new bridge; "" is none. Table 254 is internal to ovs-vswitchd (TBL_INTERNAL in
// ofproto-dpif.h of OVS) and does not count.
func foreignFlows(dump string) string {
	normal, others := false, 0
	for line := range strings.Lines(dump) {
		switch line = strings.TrimSpace(line); {
		case line == "", strings.HasPrefix(line, "table_id=254,"):
		case strings.Contains(line, " priority=0,") && strings.HasSuffix(line, "actions=NORMAL"):
			normal = true
		default:
			others++
		}
	}
	switch {
	case normal && others == 0:
		return ""
	case normal:
		return strconv.Itoa(others) + " besides its own"
	case others > 0:
		return strconv.Itoa(others) + " in place of its own"
	}
	return "none"
}

// static reads the ports of static entries without a VLAN out of fdb/show, whose
// columns are port, VLAN, MAC and age.
func static(show string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(show) {
		if !strings.HasSuffix(line, "static\n") {
			continue
		}
		if f := strings.Fields(line); len(f) == 4 && f[1] == "0" {
			m[f[2]] = f[0]
		}
	}
	return m
}

// fdb is the entry with the bridge and the MAC of want as it is; ok is false
// where there is none.
func (r *rows) fdb(want state.FDB) (have state.FDB, ok bool) {
	s, known := r.switches[want.Bridge]
	if r.switches == nil || known && s.static == nil {
		return want, true // unknown, or this OVS has no static entries
	}
	number, ok := s.static[want.MAC]
	should := local
	if want.Port != want.Bridge {
		iface, read := r.iface[want.Port]
		if !read && number != local {
			return want, ok // with many tunnels their interfaces are not read
		}
		should = strconv.Itoa(atom[int](iface, "ofport"))
	}
	if number != should {
		want.Port = "port " + number
	}
	return want, ok
}

// applyFDB makes and deletes FDB entries. Ports that changes make or change lose
// their entries, so that these are made again.
func (b *Backend) applyFDB(ctx context.Context, changes []state.Change) error {
	touched := map[string]bool{}
	var commands []Command
	for _, c := range changes {
		if c.Kind() < state.KindFDB && c.New != nil {
			touched[c.New.ID().Name] = true
		}
		if f, ok := c.Old.(state.FDB); ok && c.New == nil {
			commands = append(commands, Command{"fdb/del", f.Bridge, "0", f.MAC})
		}
	}
	add := map[state.FDB]bool{}
	for _, c := range changes {
		if f, ok := c.New.(state.FDB); ok {
			add[f] = true
		}
	}
	for _, f := range b.fdb {
		if add[f] || touched[f.Bridge] || touched[f.Port] {
			commands = append(commands, Command{"fdb/add", f.Bridge, f.Port, "0", f.MAC})
		}
	}
	if len(commands) == 0 {
		return nil
	}
	answers, err := b.call(ctx, commands)
	if errors.Is(err, ErrNoControl) && alone(b.conn.path) {
		return nil // as where OVS lacks the commands
	}
	if err != nil {
		return err
	}
	var errs []error
	for i, a := range answers {
		if a.Err != nil && !errors.Is(a.Err, ErrNoCommand) {
			errs = append(errs, fmt.Errorf("ovs-appctl %s: %w", strings.Join(commands[i], " "), a.Err))
		}
	}
	return errors.Join(errs...)
}
