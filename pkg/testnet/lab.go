package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The values of Lab.Datapath: what a bridge's datapath_type must be.
const (
	DatapathSystem = "system" // the kernel's openvswitch module
	DatapathNetdev = "netdev" // Open vSwitch's own, in userspace
)

// startTimeout bounds what New spends on making a lab. An emulated machine is slow.
const startTimeout = 2 * time.Minute

// Options describe a lab. The zero value is a lab without hosts.
type Options struct {
	// Hosts is the number of hosts.
	Hosts int
	// UnderlayMTU is the MTU of the network between the hosts; 0 means 1500.
	UnderlayMTU int
	// Datapath is DatapathSystem or DatapathNetdev; "" means the kernel's
	// where it has one.
	Datapath string
	// NoOVS leaves Open vSwitch stopped; Host.StartOVS can start it later.
	NoOVS bool
	// Prefix4 and Prefix6 are the underlay's subnets. Zero values mean
	// 172.16.32.0/24 and fd00:32::/64.
	Prefix4, Prefix6 netip.Prefix
	// FirstHost is the number of the first host's addresses in the prefixes,
	// written in decimal in both: the host 100 is 172.16.32.100 and
	// fd00:32::100. 0 means 100. Number 2 is the outside world.
	FirstHost int
	// PluginDir is a directory of the machine that every host sees, read-only,
	// as /opt/cni/bin. "" means that the directory is empty.
	PluginDir string
	// OwnDirs are more directories that each host has for itself, such as
	// /var/lib/containerd: empty at first, kept through a Reboot.
	OwnDirs []string
}

// outside is the number of the underlay's own address, the hosts' default
// gateway, which plays the rest of the world.
const outside = 2

func (o *Options) setDefaults() error {
	if o.UnderlayMTU == 0 {
		o.UnderlayMTU = 1500
	}
	if o.FirstHost == 0 {
		o.FirstHost = 100
	}
	if !o.Prefix4.IsValid() {
		o.Prefix4 = netip.MustParsePrefix("172.16.32.0/24")
	}
	if !o.Prefix6.IsValid() {
		o.Prefix6 = netip.MustParsePrefix("fd00:32::/64")
	}
	var errs []error
	if o.Hosts < 0 {
		errs = append(errs, fmt.Errorf("testnet: Hosts is %d", o.Hosts))
	}
	if !o.Prefix4.Addr().Is4() || !o.Prefix6.Addr().Is6() {
		errs = append(errs, fmt.Errorf("testnet: Prefix4 is %v and Prefix6 %v", o.Prefix4, o.Prefix6))
	} else if last := o.FirstHost + o.Hosts - 1; o.FirstHost <= outside || last > 254 || !o.Prefix4.Contains(nth4(o.Prefix4, last)) {
		errs = append(errs, fmt.Errorf("testnet: hosts %d to %d do not fit: %v, from %d, at most 254", o.FirstHost, last, o.Prefix4, outside+1))
	}
	switch o.Datapath {
	case "":
		o.Datapath = datapath()
	case DatapathSystem, DatapathNetdev:
	default:
		errs = append(errs, fmt.Errorf("testnet: Datapath is %q, not %q or %q", o.Datapath, DatapathSystem, DatapathNetdev))
	}
	return errors.Join(errs...)
}

// nth4 is the address of number n in an IPv4 prefix.
func nth4(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// nth6 is the address whose last group reads as n does in decimal.
func nth6(p netip.Prefix, n int) netip.Addr {
	low, _ := strconv.ParseUint(strconv.Itoa(n), 16, 16)
	b := p.Masked().Addr().As16()
	b[14], b[15] = byte(low>>8), byte(low)
	return netip.AddrFrom16(b)
}

// Lab is a number of hosts on one underlay network.
type Lab struct {
	// Hosts are the hosts, in the order of their addresses.
	Hosts []*Host
	// Underlay is the switch between the hosts, and with its addresses the
	// world outside. It runs programs; it has no Open vSwitch, no directories
	// of its own on disk, and cannot be rebooted.
	Underlay *Host
	// Datapath is DatapathSystem or DatapathNetdev.
	Datapath string
	// Dir is a temporary directory, removed by Close.
	Dir string

	opts Options
	once sync.Once
	err  error
}

// Start makes a lab. The context bounds the making; the lab lives until Close
// or until this process ends. An error says which Debian package is missing,
// if one is.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if err := Requirements(o); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "testnet-")
	if err != nil {
		return nil, err
	}
	l := &Lab{Datapath: o.Datapath, Dir: dir, opts: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	if err := l.startUnderlay(ctx); err != nil {
		return nil, err
	}
	for i := range o.Hosts {
		name := "host" + strconv.Itoa(i+1)
		h := &Host{
			Name:         name,
			Addr4:        nth4(o.Prefix4, o.FirstHost+i),
			Addr6:        nth6(o.Prefix6, o.FirstHost+i),
			UnderlayLink: "eth0",
			Dir:          filepath.Join(dir, name),
			lab:          l,
		}
		l.Hosts = append(l.Hosts, h)
	}
	if err := l.each(func(h *Host) error { return h.boot(ctx, !o.NoOVS) }); err != nil {
		return nil, err
	}
	return l, l.each(func(h *Host) error { return h.pingAll(ctx) })
}

// each calls f for all hosts at once.
func (l *Lab) each(f func(*Host) error) error {
	errs := make([]error, len(l.Hosts))
	var wg sync.WaitGroup
	for i, h := range l.Hosts {
		wg.Go(func() {
			if err := f(h); err != nil {
				errs[i] = fmt.Errorf("%s: %w", h.Name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// New makes a lab for a test and closes it when the test ends. On a machine
// that cannot have one the test is skipped, but fails where the environment
// says CI=true. A failed test logs what Open vSwitch on each host has to say.
func New(t testing.TB, o Options) *Lab {
	t.Helper()
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	if err := Requirements(o); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	l, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.dump(t)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// Close ends all hosts and removes Dir. It may be called more than once, and
// from several goroutines.
func (l *Lab) Close() error {
	l.once.Do(func() {
		_ = l.each(func(h *Host) error { h.halt(); return nil })
		if l.Underlay != nil {
			l.Underlay.halt()
		}
		l.err = os.RemoveAll(l.Dir)
	})
	return l.err
}
