package kernel

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

// TestWatch: there is a word about whatever happens to the network, and none
// about others.
func TestWatch(t *testing.T) {
	needRoot(t)
	n := container(t)
	ip := func(args string) {
		t.Helper()
		if err := n.Do(func() error { return ipErr(args) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{
		"link add obr0 type veth peer name p0", "link add obr0-t type veth peer name p1", "link add eth0 type veth peer name p2",
		"link set obr0 up addrgenmode none", "link set obr0-t up addrgenmode none", "link set eth0 up addrgenmode none", "addr add 192.168.1.1/24 dev obr0",
	} {
		ip(args)
	}
	words, ended := make(chan struct{}, 1000), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		ended <- n.Do(func() error { return Watch(ctx, scope, func() { words <- struct{}{} }) })
	}()
	heard := func(within time.Duration) bool {
		select {
		case <-words:
			return true
		case <-time.After(within):
			return false
		}
	}
	// Nobody hears before the watch stands.
	for ip("route replace 10.9.0.0/24 dev obr0 proto 121"); !heard(20 * time.Millisecond); {
		ip("route replace 10.9.0.0/24 dev obr0 proto 121")
	}
	for _, step := range []string{
		"link set obr0-t down", "link set obr0-t up", "addr add 192.168.1.9/24 dev obr0", "addr del 192.168.1.9/24 dev obr0",
		"neigh add 172.30.0.9 lladdr 02:00:00:00:00:09 dev obr0-t", "neigh del 172.30.0.9 dev obr0-t", "route del 10.9.0.0/24",
		"link set obr0-t alias x", "link del obr0-t", "link add obr0-t type veth peer name p1", "link set obr0-t up",
	} {
		for heard(100 * time.Millisecond) {
		}
		ip(step)
		if !heard(20 * time.Second) {
			t.Fatalf("no word about ip %s", step)
		}
	}
	for heard(100 * time.Millisecond) {
	}
	for _, step := range []string{
		"route add 10.8.0.0/24 dev eth0", "addr add 10.7.0.1/24 dev eth0", "neigh add 192.168.1.7 lladdr 02:00:00:00:00:07 dev obr0",
		"link add o1 type veth peer name o2", "link del o1", "link set eth0 mtu 1400",
	} {
		ip(step)
	}
	ip("route add 10.9.0.0/24 dev obr0 proto 121") // ours, so that the wait has an end
	if !heard(20*time.Second) || heard(100*time.Millisecond) {
		t.Errorf("a word about what is others', or none about ours")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

// TestWatchOverflow: who missed something is told so, and the watch goes on.
func TestWatchOverflow(t *testing.T) {
	needRoot(t)
	n := container(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	called, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- n.Do(func() error {
			return Watch(ctx, scope, func() {
				called <- struct{}{}
				<-goOn
			})
		})
	}()
	<-called // the watch stands, and reads nothing
	err := n.with(func(c *conn) error {
		for i := range 3000 { // foreign routes
			dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
			if err := c.handle.RouteAdd(ContainerRoute{Dst: dst}.lib(1)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	goOn <- struct{}{}
	select {
	case <-called:
	case err := <-ended:
		t.Fatalf("the watch ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("no word about what was missed")
	}
	goOn <- struct{}{}
	cancel()
	for {
		select {
		case <-called:
			goOn <- struct{}{}
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Watch: %v", err)
			}
			return
		}
	}
}
