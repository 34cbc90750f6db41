package agent

import (
	"context"
	"log/slog"
	"testing"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
)

// board is a Source on which keys are put up.
type board struct {
	Source
	key   string
	times int
}

func (b *board) Publish(_ context.Context, key string) error {
	b.key, b.times = key, b.times+1
	return nil
}

// TestPublish: a host tells its key where the nodes have another or none, and the
// next one before it is in force; of a network in clear it tells nothing.
func TestPublish(t *testing.T) {
	const network = "test-of-publish"
	t.Cleanup(func() {
		if err := rundir.RemoveKeys(network); err != nil {
			t.Error(err)
		}
	})
	publish := func(b *board, tunnel, listed string) {
		t.Helper()
		f := conflist.Parse("list", []byte(`{"cniVersion":"1.0.0","name":"`+network+`","plugins":[{"type":"ovs-gre","tunnel":{"type":"`+tunnel+`"},
			"nodes":[{"name":"h1","address":"10.0.0.1","subnets":["10.1.0.0/24"]}]}]}`))
		if f.Err != nil {
			t.Fatal(f.Err)
		}
		m := nodes.Topology{Self: f.OVS.Nodes[0]}
		m.Self.Key = listed
		a := &Agent{Options: Options{Source: b, Log: slog.New(slog.DiscardHandler)}, file: f}
		if err := a.publish(context.Background(), m); err != nil {
			t.Fatal(err)
		}
	}
	b := &board{}
	if publish(b, "gre", ""); b.times != 0 {
		t.Errorf("a network in clear: %+v", b)
	}
	publish(b, "wireguard", "")
	own, err := conflist.PublicKey(network)
	if err != nil || b.key != own {
		t.Errorf("at first: %+v, want %s, %v", b, own, err)
	}
	if publish(b, "wireguard", own); b.times != 1 {
		t.Errorf("a key that is known: %+v", b)
	}
	next, err := conflist.NextKey(network)
	if err != nil {
		t.Fatal(err)
	}
	if publish(b, "wireguard", own); b.key != next || next == own {
		t.Errorf("the next key: %+v, want %s", b, next)
	}
}
