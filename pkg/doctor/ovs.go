package doctor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
)

// sockets are the OVSDBs that networks use, each with a network that does.
func (p *host) sockets() map[string]*networkInfo {
	m := map[string]*networkInfo{}
	for _, n := range p.nets {
		if n.OVS != nil {
			m[n.OVS.OVSDB] = n
		}
	}
	return m
}

// daemons looks whether OVS runs, and answers.
func daemons(ctx context.Context, p *host) []Finding {
	var list []Finding
	for socket, n := range p.sockets() {
		conn, err := ovs.Dial(ctx, socket)
		if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
			list = append(list, fail("", "sudo "+n.ctlCommand("doctor"), "%v: it is root's to look at", err))
			continue
		}
		if err != nil {
			list = append(list, fail("", "systemctl restart "+ovs.Service(), "%v", err))
			continue
		}
		_, _, err = conn.DatapathType(ctx, "")
		conn.Close()
		if err == nil {
			err = ovs.VswitchdServes(ctx, socket)
		}
		if errors.Is(err, ovs.ErrNoHandlers) {
			list = append(list, fail("", "systemctl restart "+ovs.Service()+" && "+n.upCommand(), "%v", err))
			continue
		}
		var version string
		if err == nil {
			version, err = ovs.VswitchdVersion(ctx, socket)
		}
		if err != nil {
			list = append(list, fail("", "systemctl restart "+ovs.Service(), "%v", err))
			continue
		}
		list = append(list, ok("", "%s runs, OVSDB %s answers", version, socket))
		if able, err := ovs.StaticFDB(ctx, socket); err == nil && !able {
			list = append(list, warn("", "", "%s has no static FDB entries (ovs-appctl fdb/add came with 2.16): what is for a peer that sends "+
				"nothing goes to all peers, and a container can take the gateway's MAC address", version))
		}
	}
	return list
}

// lostUpcalls looks for packets that OVS's datapath could hand to no thread of
// ovs-vswitchd: twice, so that what was lost once is told from what gets lost now.
func lostUpcalls(ctx context.Context, p *host) []Finding {
	var list []Finding
	for socket := range p.sockets() {
		before, err := ovs.Lookups(ctx, socket)
		if err != nil {
			continue // the check of the daemons says why
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second / 2):
		}
		after, err := ovs.Lookups(ctx, socket)
		if err != nil {
			continue
		}
		for i, d := range after {
			was := d
			if i < len(before) && before[i].Name == d.Name {
				was = before[i]
			}
			list = append(list, upcalls(was, d))
		}
	}
	return list
}

func upcalls(was, is ovs.Lookup) Finding {
	cmd := "ovs-appctl upcall/show"
	switch lost := is.Lost - min(was.Lost, is.Lost); {
	case lost > 0:
		return fail("", cmd, "datapath %s loses packets: %d in half a second that ovs-vswitchd did not take", is.Name, lost)
	case is.Lost > is.Missed/100:
		return warn("", cmd, "datapath %s has lost %d of %d packets that were for ovs-vswitchd; none just now", is.Name, is.Lost, is.Missed)
	}
	return ok("", "datapath %s: ovs-vswitchd was asked about %d packets, %d were lost", is.Name, is.Missed, is.Lost)
}

// badPorts lists the interfaces that OVS does not have.
func badPorts(ctx context.Context, p *host) []Finding {
	var list []Finding
	for socket, n := range p.sockets() {
		conn, err := ovs.Dial(ctx, socket)
		if err != nil {
			continue // daemons says so
		}
		bad, err := conn.BadPorts(ctx)
		conn.Close()
		if err != nil {
			list = append(list, unknown("", err))
			continue
		}
		for _, b := range bad {
			list = append(list, badPort(p, n, b))
		}
		if len(bad) == 0 {
			list = append(list, ok("", "OVS has every port that OVSDB lists"))
		}
	}
	return list
}

func badPort(p *host, any *networkInfo, b ovs.BadPort) Finding {
	for _, n := range p.nets {
		if n.Name() == b.Network {
			return fail(n.Name(), n.ctlCommand("gc")+" && "+n.upCommand(), "port %s: %s", b.Name, b.Error)
		}
	}
	return warn("", "ovs-vsctl --db=unix:"+quote(any.OVS.OVSDB)+" list interface "+quote(b.Name),
		"port %s, which is not ours: %s", b.Name, b.Error)
}

// modules looks for what the kernel datapath needs.
func modules(_ context.Context, p *host) []Finding {
	var list []Finding
	dir := moduleDir()
	for _, n := range p.nets {
		if n.OVS == nil {
			continue
		}
		if n.netdev {
			list = append(list, ok(n.Name(), "not needed on the userspace datapath"))
			continue
		}
		list = append(list, n.modules(dir)...)
	}
	return list
}

func (n *networkInfo) modules(dir string) []Finding {
	if !loaded(dir, "openvswitch") {
		if loadable(dir, "openvswitch") {
			return []Finding{fail(n.Name(), "modprobe openvswitch", "the kernel module openvswitch is not loaded")}
		}
		return []Finding{fail(n.Name(), "apt-get install linux-modules-extra-$(uname -r)",
			`this kernel has no module openvswitch ("datapathType": "netdev" works without it)`)}
	}
	var choice []string
	switch n.OVS.Tunnel.Type {
	case config.TunnelGRE:
		choice = []string{"ip_gre", "vport_gre"}
		if n.topology.Self.Address.Is6() {
			choice = []string{"ip6_gre"}
		}
	case config.TunnelVXLAN:
		choice = []string{"vxlan", "vport_vxlan"}
	case config.TunnelGeneve:
		choice = []string{"geneve", "vport_geneve"}
	default:
		return []Finding{ok(n.Name(), "openvswitch is there")}
	}
	for _, m := range choice {
		if loaded(dir, m) || loadable(dir, m) {
			return []Finding{ok(n.Name(), "openvswitch and %s are there", m)}
		}
	}
	return []Finding{fail(n.Name(), "apt-get install linux-modules-extra-$(uname -r) && modprobe "+choice[0],
		"this kernel has no module %s, which tunnel.type %s needs", strings.Join(choice, " or "), n.OVS.Tunnel.Type)}
}

// moduleDir is where the running kernel's modules are.
func moduleDir() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return "/lib/modules/" + unix.ByteSliceToString(u.Release[:])
}

// loaded reports whether a module is in the kernel, loaded or built in.
func loaded(dir, name string) bool {
	_, err := os.Stat("/sys/module/" + name)
	return err == nil || listed(dir+"/modules.builtin", name)
}

func loadable(dir, name string) bool { return listed(dir+"/modules.dep", name) }

// listed looks for a module in one of modprobe's lists, where '-' and '_' are
// the same.
func listed(path, name string) bool {
	raw, err := os.ReadFile(path)
	return err == nil && bytes.Contains(bytes.ReplaceAll(raw, []byte("-"), []byte("_")), []byte("/"+name+".ko"))
}

// userspace looks whether the userspace datapath can send a tunnel's packets:
// only over a link of its own.
func userspace(ctx context.Context, p *host) []Finding {
	var list []Finding
	for _, n := range p.nets {
		if !n.netdev || !n.tunnels() || n.encrypted() || n.topologyErr != nil || n.underlay == "" {
			continue
		}
		link, err := kernel.LinkByName(ctx, n.underlay)
		switch {
		case err != nil:
			list = append(list, unknown(n.Name(), err))
		case link.Kind == "tun":
			list = append(list, ok(n.Name(), "the underlay's address is on %s, a port of OVS", n.underlay))
		default:
			list = append(list, fail(n.Name(), "",
				"the underlay's address is on %s, which is no OVS bridge: the userspace datapath sends nothing by it. "+
					"An OVS bridge with datapath_type=netdev and %[1]s as its port has to take over the addresses and routes of %[1]s", n.underlay))
		}
	}
	return list
}
