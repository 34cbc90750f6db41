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
	// Exact: a peer that has gone to another address than its node's is told
	// of, although it answers there: the nodes may have changed.
	Exact bool
}

// sessionLife is how long a session of WireGuard's is good for without a new
// handshake (REJECT_AFTER_TIME of the whitepaper, 6.1).
const sessionLife = 180 * time.Second

// A WireGuardDevice is a WireGuard link as it is.
type WireGuardDevice struct {
	Private rundir.Key
	// Port is the UDP port it listens on.
	Port  uint16
	Peers []WireGuardPeer
}

// A WireGuardPeer is a peer of a link as it is.
type WireGuardPeer struct {
	// Key is its public key.
	Key [32]byte
	// Endpoint is where it was heard of last; the zero AddrPort is nowhere.
	Endpoint netip.AddrPort
	Allowed  []netip.Prefix
	// Keepalive in seconds; 0 is none.
	Keepalive uint16
	// Handshake is when the last one was; the zero Time is never.
	Handshake time.Time
	// Received and Sent are bytes.
	Received, Sent uint64
}

// Text is the public key in base64.
func (p WireGuardPeer) Text() string { return base64.StdEncoding.EncodeToString(p.Key[:]) }

// Alive reports whether the peer and this host have a session.
func (p WireGuardPeer) Alive() bool { return time.Since(p.Handshake) < sessionLife }

// A wgConfig is what to change of a link.
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

// wgControl talks to what a WireGuard link is made by: the kernel, or wireguard-go.
type wgControl interface {
	get(context.Context) (WireGuardDevice, error)
	set(wgConfig) error
}

// control finds out who makes a link.
func (l Link) control() (wgControl, error) {
	switch l.Kind {
	case "wireguard":
		return wgKernel(l.Name), nil
	case "tun":
		return wgUser(l.Name), nil
	}
	return nil, fmt.Errorf("link %s is of kind %q", l.Name, l.Kind)
}

// ours reports whether a link is a network's for WireGuard. One of wireguard-go
// is whoever's who has given it the alias.
func (l Link) ours(network string) bool {
	return (l.Kind == "wireguard" || l.Kind == "tun") && l.Alias == config.WireGuardAlias(network)
}

// WireGuard returns a network's WireGuard link as it is. The error wraps
// fs.ErrNotExist where there is none.
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

// observeWireGuard adds the network's link and its peers, wanted or not, and
// what has the name of a wanted link.
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

// cidrList is a list as objects have it.
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

// applyWireGuard makes the change of a link; was is nil where there is none yet.
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

// makeWireGuard makes a link, or takes one that a call which was killed has left
// without an alias: the kernel takes none when it makes a link.
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

// blank reports whether a link is one of the kernel's WireGuard that nobody has
// done anything with.
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

// greet has a session made with a peer at once: who waits for a packet to send
// loses it where the other has not had the new key in time, and tries again after
// five seconds only. A keepalive is sent when the interval is set that was none.
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
