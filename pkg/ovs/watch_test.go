package ovs_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"ovs-gre-cni/pkg/ovs"
	"ovs-gre-cni/pkg/testnet"
)

// TestWatchVswitchd: it tells of an ovs-vswitchd that is there, ends with it, and
// ends with its context.
func TestWatchVswitchd(t *testing.T) {
	h := testnet.New(t, testnet.Options{Hosts: 1}).Hosts[0]
	socket, ctx := socketOf(h), t.Context()
	there := make(chan bool, 1)
	watch := func(ctx context.Context) <-chan error {
		ended := make(chan error, 1)
		go func() { ended <- ovs.WatchVswitchd(ctx, socket, func() { there <- true }) }()
		return ended
	}
	for _, end := range []func(context.Context) error{h.KillVswitchd, h.StopVswitchd} {
		ended := watch(ctx)
		<-there
		if err := end(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ovs.ErrUnavailable) {
			t.Errorf("%v, want that it ended", err)
		}
		if err := <-watch(ctx); !errors.Is(err, ovs.ErrUnavailable) {
			t.Errorf("%v, want that it is not there", err)
		}
		if err := h.StartVswitchd(ctx); err != nil {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, time.Minute)
	ended := watch(short)
	<-there
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that its context ended", err)
	}
}
