package hostile

import (
	"context"
	"fmt"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestNoFlooding is row 7: four hosts, and a container that sends some 200
// datagrams to a socket on the second host, which never answers. The third and the fourth
// host get none of them: not when OVS has forgotten all MAC addresses, and not
// after ovs-vswitchd was restarted, once it has settled.
func TestNoFlooding(t *testing.T) {
	t.Parallel()
	for _, segment := range []string{"host", "container"} {
		t.Run(segment, func(t *testing.T) {
			t.Parallel()
			l := lab(t, 4)
			cnitest.Network{OVSGRE: cnitest.Conf{"segment": segment}, Subnets: only4}.Install(t, l)
			cs := cnitest.AddAll(t, l, "ovsnet")
			cnitest.AllReach(t, cs)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cmd := cnitest.Program(ctx, cs[1], "sink", "0.0.0.0:9999")
			testnet.StartReady(t, cmd)
			first := l.Hosts[0]
			m, gw := mac(t, cs[0], "eth0"), mac(t, first, "obr0")
			frame := cnitest.Frame(gw, m, cnitest.TypeIPv4, cnitest.UDP(cs[0].Addr(t, false), cs[1].Addr(t, false), 9999, "nobody answers"))
			// flood sends them and counts what arrives where.
			flood := func() (second, others int) {
				wire := l.Capture(t, "ip proto 47")
				stop := keepSending(t, cs[0], "eth0", 2*time.Millisecond, frame)
				testnet.Eventually(t, 20*time.Second, func() error {
					if second = cnitest.Seen(wire.Lines(), l.Hosts[1].Addr4.String()+": GRE", ".9999: UDP"); second < 200 {
						return fmt.Errorf("host2 has got %d of 200", second)
					}
					return nil
				})
				stop()
				lines := wire.Stop(t)
				for _, h := range l.Hosts[2:] {
					others += cnitest.Seen(lines, h.Addr4.String()+": GRE", ".9999: UDP")
				}
				return second, others
			}
			forget := "for b in $(ovs-vsctl list-br); do ovs-appctl fdb/flush $b; done"
			first.Shell(t, forget)
			second, others := flood()
			figure("row 7: segment %s: OVS has forgotten: while %d datagrams reach host2, host3 and host4 get %d", segment, second, others)
			if others > 0 {
				t.Errorf("host3 and host4 get %d datagrams for host2 when OVS has forgotten", others)
			}
			for _, step := range []func(context.Context) error{first.KillVswitchd, first.StartVswitchd} {
				if err := step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			cnitest.Add(t, first, "ovsnet", "late") // on the userspace datapath the links are others now
			cnitest.Reach(t, "container 1 to container 2", cs[0], cs[1].Addr(t, false))
			first.Shell(t, forget)
			second, others = flood()
			figure("row 7: segment %s: after a restart of ovs-vswitchd and an ADD: while %d reach host2, host3 and host4 get %d", segment, second, others)
			if others > 0 {
				t.Errorf("host3 and host4 get %d datagrams for host2 after a restart of ovs-vswitchd", others)
			}
		})
	}
}
