package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/kernel"
	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/state"
)

// A watch that has ended begins again after rewatch.
const watchRetry = 200 * time.Millisecond

// watch starts the watches that request passes.
func (a *Agent) watch(ctx context.Context, all *sync.WaitGroup) {
	c := a.file.OVS
	transit := config.TransitLink(c.Bridge)
	scope := kernel.Scope{AddrLinks: []string{state.GatewayLink(c), c.Bridge, transit}, NeighLinks: []string{transit}}
	if state.Encrypted(c) {
		scope.AddrLinks = append(scope.AddrLinks, config.WireGuardName(c.Bridge))
	}
	all.Go(func() { a.watchAgain(ctx, "nodes", a.changed, a.Source.Run) })
	all.Go(func() {
		a.watchAgain(ctx, "kernel", a.changed, func(ctx context.Context, changed func()) error { return kernel.Watch(ctx, scope, changed) })
	})
	all.Go(func() {
		a.watchAgain(ctx, "OVSDB", a.changed, func(ctx context.Context, changed func()) error {
			return ovs.Watch(ctx, c.OVSDB, c.Name, changed)
		})
	})
	all.Go(func() {
		a.watchAgain(ctx, "ovs-vswitchd", a.changed, func(ctx context.Context, changed func()) error {
			return ovs.WatchVswitchd(ctx, c.OVSDB, changed)
		})
	})
	a.watchEnds(ctx, all)
}

// watchAgain runs a watch until ctx ends, again whenever it ends, and calls changed when it
// does. It logs equal errors in a row once.
func (a *Agent) watchAgain(ctx context.Context, what string, changed func(), watch func(context.Context, func()) error) {
	lastText := ""
	var watching atomic.Bool
	for {
		err := watch(ctx, func() {
			watching.Store(true)
			changed()
		})
		if watching.Swap(false) {
			lastText = ""
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != lastText {
			lastText = err.Error()
			a.Log.Warn("watch ended", "watch", what, "error", err)
		}
		if !wait(ctx, watchRetry, nil) {
			return
		}
	}
}
