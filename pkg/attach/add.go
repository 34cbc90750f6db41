package attach

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"sync"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/ipam"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// Add attaches a container to its network, and makes the host state that is missing.
// After an error it removes what it has made. The error wraps config.ErrInvalid,
// nodes.ErrNotReady, kernel.ErrConfined or one of the errors of package fault.
func Add(ctx context.Context, r Request) (res *current.Result, err error) {
	if err := kernel.Confined(); err != nil {
		return nil, err
	}
	ns, err := openNetns(r)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	mac, err := r.mac()
	if err != nil {
		return nil, err
	}
	if err := r.checkNames(); err != nil {
		return nil, err
	}
	n, err := network.Open(ctx, r.Config)
	if err != nil {
		return nil, err
	}
	defer n.OVS.Close()
	if mac != "" && state.GatewayLink(r.Config) == r.Config.Bridge && mac == state.GatewayMAC(n.Topology.Self) {
		return nil, fmt.Errorf("%w: the MAC address %s that was asked for is the gateway's own", config.ErrInvalid, mac)
	}
	if err := ovs.VswitchdAlive(r.Config.OVSDB); err != nil {
		return nil, err
	}

	var u undo
	a := &adding{Request: r, net: n, ns: ns, undo: &u, mac: mac, unlockLease: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.back(ctx, a.bound(undoBound)))
		}
		a.unlockLease()
	}()
	if err := a.acquire(ctx); err != nil {
		return nil, err
	}
	var answer func() (*current.Result, error)
	if a.Config.IPAM.Type == ipam.HostLocal || a.Config.IPAM.Type == "" {
		answer = a.askIPAM(ctx) // while the link is made, which it does not need
	}
	if err := a.link(ctx); err != nil {
		return nil, err
	}
	return a.connect(ctx, answer)
}

// openNetns opens the container's network namespace and checks it; package skel of CNI
// checks it only after ADD has run.
func openNetns(r Request) (*kernel.Netns, error) {
	ns, err := kernel.OpenNetns(r.Netns)
	if err != nil {
		return nil, fmt.Errorf("CNI_NETNS %q: %w: %w", r.Netns, fault.ErrNetns, err)
	}
	if !r.HostNetns {
		if own, err := ns.IsHost(); err != nil || own {
			ns.Close()
			return nil, errors.Join(fmt.Errorf("CNI_NETNS %q: %w: it is the host's own", r.Netns, fault.ErrNetns), err)
		}
	}
	return ns, nil
}

// adding is the state of one call of Add.
type adding struct {
	Request
	net  *network.Network
	ns   *kernel.Netns
	undo *undo
	// mac is the MAC address of the container's interface; "" is not chosen yet.
	mac string
	// bridge is the network's bridge in OVSDB.
	bridge ovs.BridgeInfo
	// bridgeLink is its internal port; the zero Link is not known.
	bridgeLink kernel.Link
	// mtu is that of both ends of the veth pair, in bytes.
	mtu int
	// comparison is that of the host state; nil after a sync, which needs none.
	comparison *network.Comparison
	// hadLease: there was a lease of this attachment before Add.
	hadLease bool
	// made: the veth pair is this call's.
	made bool
	// firstUse: the network has nothing on this host but this attachment's lease.
	firstUse bool
	// unlockLease unlocks the lease, which is locked while Add runs.
	unlockLease func()
}

// acquire takes a lease, and syncs the host state if there is none, or if it was made
// of another configuration or other nodes.
func (a *adding) acquire(ctx context.Context) error {
	a.firstUse = !a.dir().Exists()
	var err error
	if a.hadLease, err = a.dir().HasLease(rundir.LeasesOVS, a.port()); err != nil {
		return err
	}
	fresh, done, err := a.dir().Acquire(ctx, rundir.LeasesOVS, rundir.Lease{Name: a.port(), Attachment: a.Attachment})
	if err == nil || rundir.MayHaveAcquired(err) {
		a.undo.add(a.releaseLease)
	}
	if err != nil {
		return err
	}
	a.unlockLease = done
	saved := make(chan bool, 1)
	go func() { saved <- a.net.IsSaved() }() // while OVSDB is asked
	if err := a.readBridge(ctx); err != nil {
		return err
	}
	owner := a.bridge.Network == a.Config.Name || a.Config.AdoptBridge && a.bridge.Network == ""
	if a.bridge.UUID == "" || !owner || fresh || a.bridge.SpanningTree && !a.Config.AdoptBridge || !<-saved {
		a.firstUse = false
		if a.mtu, err = a.sync(ctx); err != nil {
			return err
		}
		if a.bridge.UUID == "" && !fresh {
			// The bridge was deleted by hand, and the containers' ports with it.
			if _, err := Reattach(ctx, a.net); err != nil {
				return err
			}
		}
		return a.readBridge(ctx)
	}
	if a.comparison, err = a.net.Begin(ctx, a.bridge); err != nil {
		return err
	}
	// The containers' MTU is that of our own bridge; syncIfStale corrects it later.
	// Looking up the routes to all peers first takes longer than making a port. A
	// link with less than 1280 bytes has no IPv6.
	if !a.Config.AdoptBridge {
		a.bridgeLink, _ = kernel.LinkByName(ctx, a.Config.Bridge)
	}
	if a.mtu = a.bridgeLink.MTU; a.mtu >= 1280 {
		return nil
	}
	a.mtu, err = a.comparison.MTU(ctx)
	return err
}

// syncIfStale compares the host state with the wanted one, beside meanwhile, while
// ovs-vswitchd makes the container's port, and syncs it if it differs.
func (a *adding) syncIfStale(ctx context.Context, meanwhile func() error) error {
	if a.comparison == nil { // the host state was just synced
		return meanwhile()
	}
	var same bool
	var mtu int
	var failed error
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		if same, failed = a.comparison.Same(ctx); failed == nil {
			mtu, failed = a.comparison.MTU(ctx)
		}
	}()
	err := meanwhile()
	<-looked
	if err == nil {
		err = failed
	}
	if err == nil && !same {
		a.firstUse, a.bridgeLink = false, kernel.Link{}
		mtu, err = a.sync(ctx)
	}
	if err != nil || mtu == a.mtu {
		return err
	}
	a.mtu = mtu
	end := state.Link{Name: a.port(), Up: true, MTU: mtu}
	return errors.Join(kernel.NewBackend(kernel.Scope{}).Apply(ctx, []state.Change{{New: end}}), a.ns.SetMTU(ctx, a.IfName, mtu))
}

// releaseLease releases the lease, and removes the host state if it was the last one.
func (a *adding) releaseLease(ctx context.Context) error {
	if !a.dir().Exists() {
		return nil
	}
	if was, err := a.wasAttached(ctx); err != nil || was {
		return err
	}
	if err := a.dir().Release(rundir.LeasesOVS, a.port()); err != nil {
		return err
	}
	if a.firstUse && a.dir().SavedConfig() == nil {
		return a.dir().RemoveIfUnused(ctx) // otherwise another call has made host state in the meantime
	}
	return a.removeLater(a.retryOVS(ctx, func(ctx context.Context, conn *ovs.Conn) error {
		_, err := network.Remove(ctx, a.Config, conn, false)
		return err
	}))
}

// wasAttached reports whether the attachment has a link; where that is not one that Add
// has made, lease and address are that link's.
func (a *adding) wasAttached(ctx context.Context) (bool, error) {
	l, err := hostEnd(ctx, a.Config.Name, a.port())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && ownLink(a.Config.Name, a.port(), l, a.hadLease), err
}

// retryOVS calls f with Add's connection to OVSDB, and again with a new one if that is
// broken, which may be why Add failed.
func (a *adding) retryOVS(ctx context.Context, f func(context.Context, *ovs.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.bound(ovsBound))
	defer cancel()
	err := f(ctx, a.net.OVS)
	if !errors.Is(err, fault.ErrUnavailable) {
		return err
	}
	conn, err := ovs.Dial(ctx, a.Config.OVSDB)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(ctx, conn)
}

// readBridge reads the bridge from OVSDB. It removes a port of this attachment that an
// ADD which was killed, or a DEL without OVSDB, has left.
func (a *adding) readBridge(ctx context.Context) error {
	var err error
	if a.bridge, err = a.net.OVS.Bridge(ctx, a.Config.Bridge, state.TunnelBridge(a.Config), a.port()); err != nil {
		return err
	}
	if !a.bridge.PortTaken {
		return nil
	}
	if a.bridge.TakenBy != a.Config.Name {
		return fmt.Errorf("OVS port %s is in the way: %w: it is not of network %s", a.port(), fault.ErrForeign, a.Config.Name)
	}
	if _, err := hostEnd(ctx, a.Config.Name, a.port()); !errors.Is(err, fs.ErrNotExist) {
		return err // the link exists; a.link tells whose it is
	}
	if _, err := a.net.OVS.DelPorts(ctx, a.Config.Name, a.port()); err != nil {
		return err
	}
	return a.readBridge(ctx)
}

// link makes the veth pair, with the container's end in its namespace.
func (a *adding) link(ctx context.Context) error {
	if err := a.net.OVS.WaitReleased(ctx, a.bridge); err != nil {
		return err
	}
	if a.mac == "" {
		a.mac = randomMAC()
	}
	v := kernel.Veth{Name: a.port(), MAC: hostMAC(a.mac), MTU: a.mtu, IfName: a.IfName, IfMAC: a.mac,
		Alias: a.alias()}
	err := kernel.AddVeth(ctx, v, a.ns)
	if errors.Is(err, kernel.ErrIfNameTaken) {
		return fmt.Errorf("CNI_IFNAME %s: %w: the container has an interface of that name already", a.IfName, fault.ErrForeign)
	}
	if errors.Is(err, fs.ErrExist) {
		if err = a.removeOrphan(ctx); err == nil {
			err = kernel.AddVeth(ctx, v, a.ns)
		}
	}
	if err != nil {
		ctx := context.WithoutCancel(ctx)
		if l, lost := kernel.LinkByName(ctx, v.Name); lost == nil && l.MAC == v.MAC {
			// The pair was made, but the kernel's answer was lost.
			err = errors.Join(err, kernel.DelLink(ctx, v.Name))
		}
		return err
	}
	a.made = true
	a.undo.add(func(ctx context.Context) error { return kernel.DelLink(ctx, a.port()) })
	return nil
}

// removeOrphan removes a veth pair of ours whose other end is in a namespace that
// the container no longer has.
func (a *adding) removeOrphan(ctx context.Context) error {
	if l, err := kernel.LinkByName(ctx, a.port()); err == nil && !ownLink(a.Config.Name, a.port(), l, a.hadLease) {
		return fmt.Errorf("link %s is in the way: %w: it is of kind %s with the alias %q", a.port(), fault.ErrForeign, l.Kind, l.Alias)
	}
	has, err := a.ns.HasLink(ctx, a.IfName)
	if err != nil {
		return err
	}
	if has {
		return fmt.Errorf("CNI_IFNAME %s: %w: the container is attached to network %s already", a.IfName, fault.ErrForeign, a.Config.Name)
	}
	if _, err := a.net.OVS.DelPorts(ctx, a.Config.Name, a.port()); err != nil {
		return err
	}
	if err := kernel.DelLink(ctx, a.port()); err != nil {
		return err
	}
	if err := a.readBridge(ctx); err != nil {
		return err
	}
	return a.net.OVS.WaitReleased(ctx, a.bridge)
}

// connect makes the OVS port and, while ovs-vswitchd works, looks at the host state.
// answer is IPAM's; nil means that it is to be asked once the port is there.
func (a *adding) connect(ctx context.Context, answer func() (*current.Result, error)) (*current.Result, error) {
	if err := a.quiet(); err != nil {
		return nil, err
	}
	// Up before OVS knows of it: ovs-vswitchd goes through all ports after each
	// change of a link, but only once for changes that come together.
	var res *current.Result
	var addrs []netip.Addr
	var err error
	if answer != nil {
		// ovs-vswitchd holds the kernel's lock on links for milliseconds while it makes
		// a port, so addresses come first.
		res, addrs, err = a.addresses(ctx, answer)
	} else {
		err = a.ns.Configure(ctx, a.IfName, nil, nil)
	}
	if err != nil {
		return nil, err
	}
	port := containerPort(a.Request)
	a.undo.add(func(ctx context.Context) error {
		return a.removeLater(a.retryOVS(ctx, func(ctx context.Context, conn *ovs.Conn) error {
			_, err := conn.DelPorts(ctx, a.Config.Name, port.Name)
			return err
		}))
	})
	added, waited, err := a.net.OVS.AddPort(ctx, port, a.bridge.UUID, ovs.BootID())
	if err != nil {
		return nil, err
	}
	a.undo.add(a.removeAntispoof) // syncIfStale may do what antispoof does, for all containers
	err = a.syncIfStale(ctx, func() (err error) {
		if answer == nil { // a plugin that is executed may have to send by the port
			res, addrs, err = a.addresses(ctx, a.askIPAM(ctx))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := a.antispoof(ctx, addrs); err != nil {
		return nil, err
	}
	if err := ovs.WaitPortAdded(ctx, port, added, waited); err != nil {
		return nil, err
	}
	if err := a.ns.Announce(a.IfName, a.mac, addrs); err != nil {
		return nil, err
	}
	return a.result(ctx, res)
}

// quiet has both ends do nothing by themselves, before they are up.
func (a *adding) quiet() error {
	if err := a.ignoreRouters(); err != nil || a.bridge.Datapath != "netdev" {
		return err
	}
	return errors.Join(kernel.QuietHostEnd(a.port()), a.ns.DisableTxChecksum(a.IfName))
}

// removeLater notes a port that OVSDB could not be told to drop. The next call that
// finds OVSDB will.
func (r Request) removeLater(err error) error {
	if errors.Is(err, fault.ErrUnavailable) || errors.Is(err, fault.ErrBusy) {
		return r.dir().AddPendingRemoval(r.port())
	}
	return err
}

// containerPort is the wanted OVS port of the container.
func containerPort(r Request) state.Port {
	return state.Port{Network: r.Config.Name, Name: r.port(), Bridge: r.Config.Bridge, ContainerID: r.ContainerID, IfName: r.IfName,
		Protected: r.Config.Segment == config.SegmentContainer}
}

// askIPAM begins to ask IPAM; the function that it returns waits for the answer.
func (a *adding) askIPAM(ctx context.Context) func() (*current.Result, error) {
	m := a.ipam(a.net.Topology.Self.Subnets)
	if m == nil {
		return func() (*current.Result, error) { return &current.Result{}, nil }
	}
	answer := sync.OnceValues(func() (*current.Result, error) { return m.Add(ctx) })
	go func() { _, _ = answer() }()
	a.undo.add(func(ctx context.Context) error { // also when it fails: CNI wants DEL after a failed ADD
		if _, err := answer(); errors.Is(err, fault.ErrBusy) {
			return nil // it did not get as far as an address
		}
		if !a.made {
			if was, err := a.wasAttached(ctx); err != nil || was {
				return err
			}
		}
		return a.bounded(m.Del)(ctx)
	})
	return answer
}

// addresses takes the container's interface up with the addresses that IPAM gives.
func (a *adding) addresses(ctx context.Context, answer func() (*current.Result, error)) (*current.Result, []netip.Addr, error) {
	res, err := answer()
	switch {
	case err != nil:
		return nil, nil, err
	case a.Config.IPAM.Type == "":
		return res, nil, a.ns.Configure(ctx, a.IfName, nil, nil)
	case len(res.IPs) == 0:
		return nil, nil, fmt.Errorf("%w: ipam: %s gave no address", config.ErrInvalid, a.Config.IPAM.Type)
	}
	get, err := address(a.Config, a.net.Topology, res)
	if err != nil {
		return nil, nil, err
	}
	if err := a.ns.Configure(ctx, a.IfName, get.addrs, get.routes); err != nil {
		return nil, nil, a.twoDefaults(err)
	}
	addrs := make([]netip.Addr, len(get.addrs))
	for i, p := range get.addrs {
		addrs[i] = p.Addr()
	}
	return res, addrs, nil
}

// twoDefaults adds a hint to the error about a container that has a default route by
// another network.
func (a *adding) twoDefaults(err error) error {
	if a.Config.IsDefaultGateway && errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: isDefaultGateway: %w: where another network has the container's default route, set it to false in one of the two",
			config.ErrInvalid, err)
	}
	return err
}

// result completes the result of ADD by the interfaces: bridge, host's end, container's
// end.
func (a *adding) result(ctx context.Context, res *current.Result) (*current.Result, error) {
	bridge := a.bridgeLink
	if bridge.Name == "" {
		var err error
		if bridge, err = kernel.LinkByName(ctx, a.Config.Bridge); err != nil {
			return nil, err
		}
	}
	port, err := kernel.LinkByName(ctx, a.port())
	if err == nil && !port.Up {
		// The container was restarted: ovs-vswitchd has closed the former port of the
		// same name, and has given our link the flags of that.
		err = kernel.NewBackend(kernel.Scope{}).Apply(ctx, []state.Change{{New: state.Link{Name: a.port(), Up: true}}})
	}
	if err != nil {
		return nil, err
	}
	res.CNIVersion = current.ImplementedSpecVersion
	if d := a.Config.DNS; !d.IsEmpty() {
		res.DNS = d
	}
	res.Interfaces = []*current.Interface{
		{Name: bridge.Name, Mac: bridge.MAC, Mtu: bridge.MTU},
		{Name: port.Name, Mac: port.MAC, Mtu: port.MTU},
		{Name: a.IfName, Mac: a.mac, Mtu: a.mtu, Sandbox: a.Netns},
	}
	if has, err := version.GreaterThanOrEqualTo(a.Config.CNIVersion, "1.1.0"); err == nil && !has {
		for _, i := range res.Interfaces {
			i.Mtu = 0 // new in 1.1.0, but the library prints it in 1.0.0, too
		}
	}
	return res, nil
}

// randomMAC is a locally administered unicast address. systemd-udevd does not change an
// address that is given when the link is made (addr_assign_type NET_ADDR_SET).
func randomMAC() string {
	m := make(net.HardwareAddr, 6)
	_, _ = rand.Read(m) // never fails
	m[0] = m[0]&^1 | 2
	return m.String()
}
