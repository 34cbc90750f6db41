package agent

import (
	"context"
	"sync"
	"time"

	"ovs-gre-cni/pkg/attach"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/network"
	"ovs-gre-cni/pkg/ovs"
)

// Every ADD and DEL is heard where containers' ports and links are watched: what
// happened is looked at lull after it, when a DEL is through, and while something
// drifts that no pass mends, after twice the time before, up to lastRetry.
const lull = time.Second

// watchEnds asks for a pass where the host's end of a running container is not as it
// should be. A pass for each ADD and DEL would be the whole host's.
func (a *Agent) watchEnds(ctx context.Context, all *sync.WaitGroup) {
	heard := make(chan struct{}, 1)
	tell := func() {
		select {
		case heard <- struct{}{}:
		default: // it is being waited for
		}
	}
	c := a.file.OVS
	all.Go(func() {
		a.watchAgain(ctx, "links of containers", tell, func(ctx context.Context, changed func()) error {
			return kernel.WatchLinks(ctx, config.IsPortName, changed)
		})
	})
	all.Go(func() {
		a.watchAgain(ctx, "OVSDB's ports of containers", tell, func(ctx context.Context, changed func()) error {
			return ovs.WatchPorts(ctx, c.OVSDB, c.Name, changed)
		})
	})
	all.Go(func() {
		for rest := lull; ; {
			select {
			case <-heard:
			case <-ctx.Done():
				return
			}
			if !wait(ctx, rest, nil) {
				return
			}
			if !a.endsDrift(ctx) {
				rest = lull
				continue
			}
			a.changed()
			rest = min(2*rest, lastRetry)
		}
	})
}

// endsDrift reports whether the host's end of a running container is not as it should
// be. Where it cannot tell, passes say why.
func (a *Agent) endsDrift(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	last := a.outcome()
	if last.file.OVS == nil {
		return false // the first pass is yet to come
	}
	n, err := network.Open(ctx, last.file.OVS)
	if err != nil {
		return false
	}
	defer n.OVS.Close()
	changes, err := attach.DriftedPorts(ctx, n)
	return err == nil && len(changes) > 0
}
