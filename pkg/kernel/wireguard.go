package kernel

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/rundir"
	"ovs-gre-cni/pkg/state"
)

// ErrNoWireGuard is wrapped by errors about a kernel without WireGuard.
var ErrNoWireGuard = errors.New("this kernel has no WireGuard (CONFIG_WIREGUARD): modprobe wireguard")

// WireGuardScope is a network's WireGuard link. The zero value is none.
type WireGuardScope struct {
	Network, Link string
	// Exact: the endpoint of a peer must be that of its node. Otherwise another one
	// counts as right while there is a session by it: the peer has roamed.
	Exact bool
}

// sessionLife is how long a WireGuard session lasts after its handshake
// (REJECT_AFTER_TIME in section 6.1 of the whitepaper).
const sessionLife = 180 * time.Second

// A WireGuardDevice is the configuration and state of a WireGuard link.
type WireGuardDevice struct {
	// Private is the private key; the zero Key is none.
	Private rundir.Key
	// Port is the UDP port that the link listens on.
	Port  uint16
	Peers []WireGuardPeer
}

// A WireGuardPeer is a peer of a WireGuard link.
type WireGuardPeer struct {
	// Key is the peer's public key.
	Key [32]byte
	// Endpoint is the outer source of the peer's last packet, or the configured one; the
	// zero AddrPort is none.
	Endpoint netip.AddrPort
	// Allowed are the allowed IPs.
	Allowed []netip.Prefix
	// Keepalive is the interval of keepalives in seconds; 0 is none.
	Keepalive uint16
	// Handshake is the time of the last handshake; the zero Time is none.
	Handshake time.Time
	// Received and Sent count bytes.
	Received, Sent uint64
}

// Text returns the public key in base64.
func (p WireGuardPeer) Text() string { return base64.StdEncoding.EncodeToString(p.Key[:]) }

// Alive reports whether the peer and this host have a session.
func (p WireGuardPeer) Alive() bool { return time.Since(p.Handshake) < sessionLife }

// A wgConfig is a change of a WireGuard link.
type wgConfig struct {
	private *rundir.Key
	port    uint16 // 0 leaves it
	peer    *wgPeerConfig
}

type wgPeerConfig struct {
	key       [32]byte
	remove    bool
	endpoint  netip.AddrPort // the zero AddrPort leaves it
	allowed   []netip.Prefix // they replace those before; nil leaves them
	keepalive *uint16
}

// wgControl configures a WireGuard link of the kernel, or one of wireguard-go.
type wgControl interface {
	get(context.Context) (WireGuardDevice, error)
	set(wgConfig) error
}

// control returns the wgControl of a link, by its kind.
func (l Link) control() (wgControl, error) {
	switch l.Kind {
	case "wireguard":
		return wgKernel(l.Name), nil
	case "tun":
		return wgUser(l.Name), nil
	}
	return nil, fmt.Errorf("link %s is of kind %q", l.Name, l.Kind)
}

// ours reports whether a link is a network's WireGuard link: it has the network's alias.
// wireguard-go's links are of kind tun; an administrator gives them the alias.
func (l Link) ours(network string) bool {
	return (l.Kind == "wireguard" || l.Kind == "tun") && l.Alias == config.WireGuardAlias(network)
}

// WireGuard reads a network's WireGuard link. The error wraps fs.ErrNotExist where there
// is no link of that name, and fault.ErrForeign where it is not the network's.
func WireGuard(ctx context.Context, network, name string) (WireGuardDevice, error) {
	return withConn(func(c *conn) (WireGuardDevice, error) {
		l, err := c.link(ctx, name)
		if err != nil {
			return WireGuardDevice{}, err
		}
		if !l.ours(network) {
			return WireGuardDevice{}, fmt.Errorf("link %s: %w: it is of kind %q with the alias %q", name, fault.ErrForeign, l.Kind, l.Alias)
		}
		control, err := l.control()
		if err != nil {
			return WireGuardDevice{}, err
		}
		return control.get(ctx)
	})
}

// observeWireGuard adds the network's link and its peers, wanted or not. Another link
// with the name of the wanted one is foreign.
func (b *Backend) observeWireGuard(ctx context.Context, c *conn, want, have state.Set) error {
	s := b.scope.WireGuard
	if s.Link == "" {
		return nil
	}
	l, err := c.link(ctx, s.Link)
	if errors.As(err, new(noLink)) {
		return nil
	}
	if err != nil {
		return err
	}
	w := state.WireGuard{Network: s.Network, Name: s.Link}
	if !l.ours(s.Network) {
		if blank, err := l.blank(ctx); err != nil || blank {
			return err
		}
		if asked, ok := want[w.ID()]; ok {
			have.Put(state.Foreign{Want: asked, Have: fmt.Sprintf("a link of kind %q with the alias %q", l.Kind, l.Alias)})
		}
		return nil
	}
	control, err := l.control()
	if err != nil {
		return err
	}
	dev, err := control.get(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", w.Noun(), err)
	}
	private, err := rundir.PrivateKey(s.Network)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.Port, w.NoKey = dev.Port, err != nil || dev.Private != private
	have.Put(w)
	for _, p := range dev.Peers {
		o := state.WireGuardPeer{Link: s.Link, Key: p.Text(), Endpoint: p.Endpoint, AllowedIPs: cidrList(p.Allowed), Keepalive: p.Keepalive}
		if asked, ok := want[o.ID()].(state.WireGuardPeer); ok && !s.Exact && p.Alive() {
			o.Endpoint = asked.Endpoint
		}
		have.Put(o)
	}
	return nil
}

// cidrList is a list of prefixes as objects have it: sorted, with commas.
func cidrList(list []netip.Prefix) string {
	slices.SortFunc(list, netip.Prefix.Compare)
	var b strings.Builder
	for i, p := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// applyWireGuard makes or changes a link; was is nil if it is to be made.
func (c *conn) applyWireGuard(ctx context.Context, w state.WireGuard, was state.Object) error {
	private, err := rundir.PrivateKey(w.Network)
	if err != nil {
		return err
	}
	if was == nil {
		if err := c.makeWireGuard(ctx, w); err != nil {
			return err
		}
	}
	control, err := c.wireGuard(ctx, w.Name)
	if err != nil {
		return err
	}
	before, err := control.get(ctx)
	if err != nil {
		return err
	}
	if err := control.set(wgConfig{private: &private, port: w.Port}); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("UDP port %d is another's on this host: give the network another tunnel.port: %w", w.Port, err)
		}
		return err
	}
	var errs []error
	if before.Private != private { // all sessions are over
		for _, p := range before.Peers {
			errs = append(errs, greet(control, p.Key, p.Keepalive))
		}
	}
	return errors.Join(errs...)
}

// makeWireGuard makes a link. It also takes a blank one of that name, which a call has
// left that was killed before it gave the alias: the kernel ignores an alias when it makes
// a link.
func (c *conn) makeWireGuard(ctx context.Context, w state.WireGuard) error {
	err := c.addLink(ctx, newLink{name: w.Name, kind: "wireguard"})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoWireGuard
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	l, failed := c.link(ctx, w.Name)
	if failed != nil {
		return failed
	}
	if blank, failed := l.blank(ctx); failed != nil || !blank {
		return errors.Join(err, failed)
	}
	return c.execute(ctx, func(h *netlink.Handle) error {
		return h.LinkSetAlias(byIndex(l.Index), config.WireGuardAlias(w.Network))
	})
}

// blank reports whether a link of the kernel's WireGuard is unused: down, without alias,
// key and peers.
func (l Link) blank(ctx context.Context) (bool, error) {
	if l.Kind != "wireguard" || l.Alias != "" || l.Up {
		return false, nil
	}
	dev, err := wgKernel(l.Name).get(ctx)
	return err == nil && dev.Private == (rundir.Key{}) && len(dev.Peers) == 0, err
}

func (c *conn) wireGuard(ctx context.Context, name string) (wgControl, error) {
	l, err := c.link(ctx, name)
	if err != nil {
		return nil, err
	}
	return l.control()
}

func (c *conn) applyWireGuardPeer(ctx context.Context, p state.WireGuardPeer, remove bool) error {
	control, err := c.wireGuard(ctx, p.Link)
	if err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(p.Key)
	if err != nil || len(raw) != 32 {
		return fmt.Errorf("key %q: %w", p.Key, config.ErrInvalid)
	}
	to := wgPeerConfig{key: [32]byte(raw), remove: remove}
	if remove {
		return control.set(wgConfig{peer: &to})
	}
	to.endpoint, to.keepalive = p.Endpoint, &p.Keepalive
	for s := range strings.SplitSeq(p.AllowedIPs, ",") {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			return err
		}
		to.allowed = append(to.allowed, prefix)
	}
	if err := control.set(wgConfig{peer: &to}); err != nil {
		return err
	}
	return greet(control, to.key, p.Keepalive)
}

// greet makes WireGuard begin a session with a peer now. Otherwise the first packet would
// begin it, be lost if the peer does not have the new key yet, and the next try would be
// five seconds later. WireGuard sends a keepalive when the interval changes from none.
func greet(control wgControl, key [32]byte, keepalive uint16) error {
	for _, seconds := range []uint16{0, max(keepalive, 1), keepalive} {
		if err := control.set(wgConfig{peer: &wgPeerConfig{key: key, keepalive: &seconds}}); err != nil {
			return err
		}
	}
	return nil
}

// delWireGuard deletes a network's link, and no other of its name.
func (c *conn) delWireGuard(ctx context.Context, w state.WireGuard) error {
	l, err := c.link(ctx, w.Name)
	if err != nil || !l.ours(w.Network) {
		return err
	}
	return c.execute(ctx, func(h *netlink.Handle) error { return h.LinkDel(byIndex(l.Index)) })
}
