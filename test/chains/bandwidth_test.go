package chains

import (
	"fmt"
	"testing"
	"time"

	"ovs-gre-cni/pkg/testnet"
	"ovs-gre-cni/test/cnitest"
)

// The rate and burst of the test, in bits, and what is transferred, in bytes:
// a bucket of 50,000 bytes, then 250,000 a second, which makes 2.8 s.
const (
	limited  = `CAP_ARGS={"bandwidth":{"ingressRate":2000000,"ingressBurst":400000,"egressRate":2000000,"egressBurst":400000}}`
	transfer = 750000
	atLeast  = 2500 * time.Millisecond
)

// TestBandwidth transfers a file to and from a container that has a rate, and
// from one that has none. A slow machine can only take longer.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	l := lab(t, cnitest.Network{Chain: []cnitest.Conf{{"type": "bandwidth", "capabilities": cnitest.Conf{"bandwidth": true}}}})
	h := l.Hosts[0]
	before := cnitest.MustLook(t, h)
	c, far := add(t, h, "ovsnet", "c1", limited), add(t, l.Hosts[1], "ovsnet", "far")
	serve(t, c, "c1", transfer)
	serve(t, far, "far", transfer)
	c.check(t)
	free := add(t, h, "ovsnet", "free") // OVS goes through all ports once more
	testnet.Eventually(t, longest, func() error { return fast(free, far) })
	if err := fast(c, far); err == nil {
		t.Errorf("what comes to the container is not kept at its rate")
	}
	// OVS in userspace takes what a container sends before the kernel's queues
	// see it; docs/runtimes.md says so.
	if err := fast(far, c); err == nil && l.Datapath == testnet.DatapathSystem {
		t.Errorf("what the container sends is not kept at its rate")
	}
	for _, c := range []*container{c, free, far} {
		c.del(t)
	}
	unchanged(t, h, before)
}

// fast is an error where a transfer takes as long as it must at the rate. One
// that takes ten times as long fails the test: the rate is a rate.
func fast(to, from *container) error {
	began := time.Now()
	out, err := fetch(to, fmt.Sprintf("%s/%d", from.Result.IPs[0].Address.IP, transfer))
	if took := time.Since(began); err == nil && took >= atLeast {
		err = fmt.Errorf("%d bytes took %v", transfer, took)
	}
	if err == nil && len(out) != transfer {
		err = fmt.Errorf("%d bytes came of %d", len(out), transfer)
	}
	return err
}
