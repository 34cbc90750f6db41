package kernel

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"ovs-gre-cni/pkg/state"
)

// laps sums what the steps of an iteration take.
type laps struct {
	names []string
	sum   []time.Duration
	last  time.Time
}

func (l *laps) start() { l.last = time.Now() }

func (l *laps) lap(i int) {
	now := time.Now()
	l.sum[i] += now.Sub(l.last)
	l.last = now
}

func (l *laps) report(b *testing.B) {
	for i, name := range l.names {
		b.ReportMetric(float64(l.sum[i].Microseconds())/float64(b.N), "µs-"+name)
	}
}

func newLaps(names ...string) *laps {
	return &laps{names: names, sum: make([]time.Duration, len(names))}
}

// What ADD and DEL do with the kernel.
func BenchmarkVeth(b *testing.B) {
	ctx := inNetns(b)
	n := container(b)
	addrs := prefixes("192.168.1.2/24", "fd00:1::2/64")
	routes := []ContainerRoute{
		{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.168.1.1")},
		{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd00:1::1")},
	}
	l := newLaps("add", "configure", "announce", "inspect", "delete")
	for b.Loop() {
		l.start()
		err := AddVeth(ctx, pair, n)
		l.lap(0)
		err = errors.Join(err, n.Configure(ctx, "eth0", addrs, routes))
		l.lap(1)
		err = errors.Join(err, n.Announce("eth0", pair.IfMAC, addresses("192.168.1.2", "fd00:1::2")))
		l.lap(2)
		_, err2 := n.Inspect(ctx, "eth0")
		l.lap(3)
		err = errors.Join(err, err2, DelLink(ctx, pair.Name))
		l.lap(4)
		if err != nil {
			b.Fatal(err)
		}
	}
	l.report(b)
}

// What route-sync does for a mesh of a thousand peers.
func BenchmarkRoutes1000(b *testing.B) {
	ctx := inNetns(b)
	ip(b, "tuntap add obr0-t mode tap")
	ip(b, "addr add 192.168.1.1/24 dev lo")
	ip(b, "link set obr0-t up")
	backend, want := NewBackend(Scope{RouteTable: 254, RouteSources: addresses("192.168.1.1")}), many(1000)
	add, del := state.Diff(want, nil), state.Diff(nil, want)
	l := newLaps("add", "observe", "diff", "delete")
	for b.Loop() {
		l.start()
		err := backend.Apply(ctx, add)
		l.lap(0)
		have, err2 := backend.Observe(ctx, want)
		l.lap(1)
		if n := len(state.Diff(want, have)); n > 0 {
			b.Fatalf("%d routes differ", n)
		}
		l.lap(2)
		if err := errors.Join(err, err2, backend.Apply(ctx, del)); err != nil {
			b.Fatal(err)
		}
		l.lap(3)
	}
	l.report(b)
}
