package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// TestFlowsComeBack: with one tunnel port nothing gets through an ovs-vswitchd
// that has begun anew, until the agent has put its flows back, which it does at once.
func TestFlowsComeBack(t *testing.T) {
	l := lab(t, 2, 2)
	for _, h := range l.Hosts {
		h.WriteFile(t, template, strings.Replace(conf(t, l), `"type": "ovs-gre"`, `"type": "ovs-gre", "tunnel": {"ports": "one"}`, 1))
	}
	agents := startAll(t, l)
	cs := cnitest.AddAll(t, l, network)
	cnitest.AllReach(t, cs)
	h, ctx := l.Hosts[0], context.Background()
	for _, end := range []func(context.Context) error{h.StopVswitchd, h.KillVswitchd} {
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		if err := h.StartVswitchd(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		testnet.Eventually(t, longest, func() error {
			if lost, err := cnitest.Unreached(cs[0], cs[1].Addrs()...); err != nil || len(lost) > 0 {
				return fmt.Errorf("no answer from %v, %w", lost, err)
			}
			return nil
		})
		if n := agents[0].metric(t, "ovs_gre_agent_tunnel_dropped_packets_total"); n != 0 {
			t.Errorf("%.0f packets of strangers were dropped: there are none", n)
		}
		t.Logf("traffic is back %s after ovs-vswitchd", time.Since(began).Round(time.Millisecond))
	}
}
