package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"

	current "github.com/containernetworking/cni/pkg/types/100"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// Check compares a container with prev, the result of ADD, and the host state with the
// wanted one. It changes nothing. All differences are returned in one state.Drift.
func Check(ctx context.Context, r Request, prev *current.Result) error {
	var drift state.Drift
	gather := func(err error) error {
		var d state.Drift
		switch {
		case errors.As(err, &d):
			drift = append(drift, d...)
		case errors.Is(err, fault.ErrDrift):
			drift = append(drift, state.Difference{Text: err.Error()})
		default:
			return err
		}
		return nil
	}
	var sends, fits int // MTUs in bytes: of the container's interface, of what a new one would get
	looks := []func() error{
		func() error { return checkVswitchd(ctx, r.Config.OVSDB) },
		func() (err error) { sends, err = checkContainer(ctx, r, prev); return err },
		func() (err error) { fits, err = checkHost(ctx, r, prev); return err },
		func() error { return checkIPAM(ctx, r, prev) },
	}
	errs := make([]error, len(looks))
	var all sync.WaitGroup
	for i, look := range looks {
		all.Go(func() { errs[i] = look() })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil && gather(err) != nil {
			return err
		}
	}
	if fits > 0 && sends > fits {
		drift = append(drift, r.inside(fmt.Sprintf("interface %s of the container has mtu %d, should be at most %d", r.IfName, sends, fits),
			fmt.Sprintf("link set %s mtu %d", r.IfName, fits)))
	}
	if len(drift) > 0 {
		return drift
	}
	return nil
}

// inside is a Difference that a command of ip mends in the container's namespace.
func (r Request) inside(text, ip string) state.Difference {
	d := state.Difference{Text: text}
	if !strings.ContainsFunc(r.Netns, func(c rune) bool { return !strings.ContainsRune(plain, c) }) {
		d.Command = "nsenter --net=" + r.Netns + " ip " + ip
	}
	return d
}

// plain are the characters that a shell takes as they are.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:"

func checkVswitchd(ctx context.Context, socket string) error {
	if err := ovs.VswitchdServes(ctx, socket); err != nil {
		return state.DriftOfTexts(err.Error())
	}
	return nil
}

// checkHost compares host state and the container's port with what they should be. It
// returns the MTU inside containers.
func checkHost(ctx context.Context, r Request, prev *current.Result) (mtu int, err error) {
	n, err := network.Open(ctx, r.Config)
	if err != nil {
		return 0, err
	}
	defer n.OVS.Close()
	backends, err := n.AskBackends(ctx, containerPort(r))
	if err != nil {
		return 0, err
	}
	want, mtu, err := n.Want(ctx)
	if err != nil {
		return 0, err
	}
	want = want.Needed()
	want.Put(containerPort(r), state.Link{Name: r.port(), Up: true})
	known, err := antispoofNeighbours(ctx, r, n.Topology, prev)
	if err != nil {
		return mtu, err
	}
	want.Put(known...)
	changes, err := state.Check(ctx, want, backends...)
	if err != nil {
		return mtu, err
	}
	drift := state.DriftOf(changes)
	for i, c := range changes {
		if i < len(drift) && c.Old == nil && c.New.ID() == (state.Link{Name: r.port()}).ID() {
			if l, err := hostEnd(ctx, r.Config.Name, r.port()); err == nil {
				drift[i] = state.Difference{
					Text:    fmt.Sprintf("the container's link %s is called %s now", r.port(), l.Name),
					Command: fmt.Sprintf("ip link set %s down name %s up", l.Name, r.port()),
				}
			}
		}
	}
	var spoof state.Drift
	if err := checkSpoofing(ctx, r, n, prev); err != nil && !errors.As(err, &spoof) {
		return mtu, err
	}
	if drift = append(drift, spoof...); len(drift) > 0 {
		return mtu, drift
	}
	return mtu, nil
}

// checkContainer looks for what ADD's result says: interface, addresses,
// routes. What later plugins change, such as a MAC address or more routes, is
// let be. It returns the interface's MTU.
func checkContainer(ctx context.Context, r Request, prev *current.Result) (mtu int, err error) {
	ns, err := openNetns(r)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	at := slices.IndexFunc(prev.Interfaces, func(i *current.Interface) bool { return i.Name == r.IfName && i.Sandbox != "" })
	if at < 0 {
		return 0, fmt.Errorf("%w: prevResult.interfaces: no interface %s in a sandbox", config.ErrInvalid, r.IfName)
	}
	link, err := ns.Inspect(ctx, r.IfName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, state.DriftOfTexts(fmt.Sprintf("interface %s is missing in the container", r.IfName))
	}
	if err != nil {
		return 0, err
	}
	var drift state.Drift
	if !link.Up {
		drift = append(drift, r.inside(fmt.Sprintf("interface %s of the container is down", r.IfName), "link set "+r.IfName+" up"))
	}
	for _, ip := range prev.IPs {
		if ip.Interface == nil || *ip.Interface != at {
			continue
		}
		ones, _ := ip.Address.Mask.Size()
		if !slices.ContainsFunc(link.Addrs, sameAddr(ip.Address.IP.String(), ones)) {
			drift = append(drift, r.inside(fmt.Sprintf("address %s of %s is missing in the container", ip.Address.String(), r.IfName),
				fmt.Sprintf("addr replace %s dev %s", ip.Address.String(), r.IfName)))
		}
	}
	for _, pr := range prev.Routes {
		want := containerRoute(pr)
		if !slices.ContainsFunc(link.Routes, sameRoute(want)) {
			drift = append(drift, r.inside(fmt.Sprintf("route %s by %s is missing in the container", want.Dst, r.IfName),
				routeCommand(want, r.IfName)))
		}
	}
	if len(drift) > 0 {
		return link.MTU, drift
	}
	return link.MTU, nil
}

// routeCommand is the command of ip that makes a container's route.
func routeCommand(r kernel.ContainerRoute, dev string) string {
	s := "route replace " + r.Dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if s += " dev " + dev; r.Onlink {
		s += " onlink"
	}
	for _, n := range []struct {
		name  string
		value int
	}{{"mtu", r.MTU}, {"advmss", r.AdvMSS}, {"metric", r.Priority}, {"table", r.Table}, {"scope", r.Scope}} {
		if n.value != 0 {
			s += fmt.Sprintf(" %s %d", n.name, n.value)
		}
	}
	return s
}

// checkIPAM makes the IPAM plugin check those addresses of the result that are at the
// container's interface.
func checkIPAM(ctx context.Context, r Request, prev *current.Result) error {
	m := r.ipam(nil)
	if m == nil {
		return nil
	}
	var addrs []netip.Addr
	for _, ip := range prev.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(prev.Interfaces) {
			continue
		}
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if at := prev.Interfaces[*ip.Interface]; ok && at.Name == r.IfName && at.Sandbox != "" {
			addrs = append(addrs, a.Unmap())
		}
	}
	return m.Check(ctx, addrs)
}

func sameRoute(want kernel.ContainerRoute) func(kernel.ContainerRoute) bool {
	return func(have kernel.ContainerRoute) bool {
		return have.Dst == want.Dst && (!want.Via.IsValid() || have.Via == want.Via) && (want.Table == 0 || have.Table == want.Table)
	}
}
