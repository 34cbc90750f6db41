package openflow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ovs-gre-cni/pkg/openflow"
	"ovs-gre-cni/pkg/testnet"
)

func open(t *testing.T, h *testnet.Host, bridge string) *openflow.Conn {
	t.Helper()
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root/run/openvswitch/%s.mgmt", h.PID(), bridge))
	if err != nil {
		t.Fatal(err)
	}
	c, err := openflow.Open(bounded(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// every is a flow of each form.
func every() []openflow.Flow {
	mac, any := openflow.ParseMAC("0a:58:ac:10:20:65"), openflow.MAC{0xff, 0xff}
	a4, a6 := netip.MustParseAddr("172.16.32.101"), netip.MustParseAddr("fd00:32::101")
	net4, net6 := netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd10:2::/64")
	toEth := openflow.Move{From: openflow.EthDst, To: openflow.TunDst, NumBits: 32}
	return []openflow.Flow{
		{Priority: 1, Match: openflow.Match{InPort: 65000}},
		{Priority: 2, Match: openflow.Match{InPort: openflow.Local, EthDst: openflow.MAC{0x0a, 0x58}, EthDstMask: any}, Moves: []openflow.Move{toEth}, Output: 65000},
		{Priority: 2, Match: openflow.Match{TunSrc: netip.PrefixFrom(a4, 32)}, Output: openflow.Local},
		{Priority: 2, Match: openflow.Match{TunSrc: netip.PrefixFrom(a6, 128)}, Output: openflow.Local},
		{Priority: 3, Match: openflow.ToMAC(mac), TunDst: a6, Output: 65000},
		{Priority: 3, Match: openflow.Match{InPort: openflow.Local, IPDst: netip.MustParsePrefix("10.1.0.0/23")}, SetEthDst: mac, TunDst: a4, Output: 65000},
		{Priority: 3, Match: openflow.Match{IPDst: netip.MustParsePrefix("fd10:1::/64")}, SetEthDst: mac, TunDst: a6, Output: 65000},
		{Priority: 4, Match: openflow.Match{TunSrc: net4, IPSrc: netip.MustParsePrefix("10.0.0.0/8"), IPDst: netip.MustParsePrefix("10.3.7.9/32")},
			Moves: []openflow.Move{{From: openflow.TunSrc, To: openflow.IPSrc, ToBit: 8, NumBits: 16}}, Output: openflow.Local},
		{Priority: 4, Match: openflow.Match{IPSrc: netip.MustParsePrefix("10.0.0.0/8")}, SetEthDst: mac,
			Moves: []openflow.Move{{From: openflow.IPDst, To: openflow.EthDst, FromBit: 5, NumBits: 11}, toEth}, Output: 65000},
		{Priority: 4, Match: openflow.Match{IPSrc: net6, TunSrc: netip.MustParsePrefix("fd00:32::/32")}, Output: openflow.Local},
		{Priority: 0},
	}
}

// TestReplace: the table is what ovs-ofctl makes of the flows' texts.
func TestReplace(t *testing.T) {
	h := testnet.New(t, testnet.Options{Hosts: 1}).Hosts[0]
	for _, b := range []string{"b0", "b1"} {
		h.Shell(t, "ovs-vsctl --timeout=20 add-br "+b+" -- set bridge "+b+" datapath_type=netdev")
	}
	var text []string
	for _, f := range every() {
		text = append(text, "cookie=0x77,"+f.String())
	}
	dump := func(bridge string) string {
		return h.Shell(t, "ovs-ofctl --no-stats --no-names -O OpenFlow14 dump-flows "+bridge+" | sort")
	}
	c := open(t, h, "b0")
	for range 2 { // it is the same the second time
		if err := c.Replace(bounded(t), 0x77, every()); err != nil {
			t.Fatal(err)
		}
		h.Shell(t, "ovs-ofctl -O OpenFlow14 --bundle replace-flows b1 - <<'END'\n"+strings.Join(text, "\n")+"\nEND\n")
		if diff := cmp.Diff(dump("b1"), dump("b0")); diff != "" || !strings.Contains(dump("b0"), "tun_ipv6_src=fd00:32::101") {
			t.Errorf("-ovs-ofctl +Replace:\n%s", diff)
		}
	}
}

func TestCount(t *testing.T) {
	h := testnet.New(t, testnet.Options{Hosts: 1}).Hosts[0]
	h.Shell(t, "ovs-vsctl --timeout=20 add-br b0 -- set bridge b0 datapath_type=netdev")
	c, ctx := open(t, h, "b0"), bounded(t)
	count := func(m openflow.Match, cookie, mask uint64, want int) {
		t.Helper()
		if got, err := c.Count(ctx, m, cookie, mask); err != nil || got.Flows != want {
			t.Errorf("%+v, %v, want %d flows", got, err, want)
		}
		if got, err := c.Flows(ctx); m == (openflow.Match{}) && mask == 0 && (err != nil || got != want) {
			t.Errorf("%d flows in all tables, %v, want %d", got, err, want)
		}
	}
	count(openflow.Match{}, 0, 0, 1) // of a switch that learns
	many := make([]openflow.Flow, 5000)
	for i := range many {
		many[i] = openflow.Flow{Priority: 2, Match: openflow.Match{TunSrc: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 32)}, Output: openflow.Local}
	}
	if err := c.Replace(ctx, 1<<63|7, append(many, openflow.Flow{Priority: 1, Match: openflow.Match{InPort: 9}})); err != nil {
		t.Fatal(err)
	}
	h.Shell(t, "ovs-ofctl add-flow b0 cookie=0x7,priority=1,in_port=8,actions=drop")
	h.Shell(t, "ovs-ofctl add-flow b0 cookie=0x7,table=253,priority=1,in_port=8,actions=drop")
	count(openflow.Match{}, 1<<63|7, 1<<64-1, 5001)
	count(openflow.Match{}, 0, 0, 5003)
	count(openflow.Match{InPort: 9}, 0, 0, 1)
	if err := c.Replace(ctx, 7, nil); err != nil {
		t.Fatal(err)
	}
	count(openflow.Match{}, 0, 0, 0)
}

// TestRefused: a flow that the switch does not take changes nothing.
func TestRefused(t *testing.T) {
	h := testnet.New(t, testnet.Options{Hosts: 1}).Hosts[0]
	h.Shell(t, "ovs-vsctl --timeout=20 add-br b0 -- set bridge b0 datapath_type=netdev")
	c, ctx := open(t, h, "b0"), bounded(t)
	bad := openflow.Flow{Priority: 2, Output: 0xffffff05} // no such port can be
	if err := c.Replace(ctx, 7, append(every(), bad)); !errors.Is(err, openflow.ErrRefused) {
		t.Errorf("%v, want a refusal", err)
	}
	if got, err := open(t, h, "b0").Count(ctx, openflow.Match{}, 0, 0); err != nil || got.Flows != 1 {
		t.Errorf("%+v, %v, want the one flow that was there", got, err)
	}
	h.Shell(t, "ovs-vsctl --timeout=20 set bridge b0 protocols=OpenFlow10")
	testnet.Eventually(t, time.Minute, func() error {
		conn, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root/run/openvswitch/b0.mgmt", h.PID()))
		if err != nil {
			return err
		}
		if _, err = openflow.Open(ctx, conn); !errors.Is(err, openflow.ErrRefused) || !strings.Contains(err.Error(), "protocols") {
			return fmt.Errorf("a bridge of OpenFlow 1.0: %w", err)
		}
		return nil
	})
}
