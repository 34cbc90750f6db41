package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// broken breaks a daemon until the clause ends, or until mend is called.
func (t *try) broken(with, mend func(context.Context) error) error {
	t.defers(func() error { return mend(t.ctx) })
	return with(t.ctx)
}

// dead detaches a container with a daemon of OVS dead, and looks what is left
// when it is back: nothing after a GC, or after a DEL in versions without GC.
func (t *try) dead(kill, start func(context.Context) error) error {
	stays, err := t.one(t.net)
	if err != nil {
		return err
	}
	b, err := t.one(t.net)
	if err != nil {
		return err
	}
	outer, err := t.outer(b)
	if err != nil {
		return err
	}
	if err := t.broken(kill, start); err != nil {
		return err
	}
	begin := time.Now()
	if err := t.del(b); err != nil {
		return err
	}
	took := time.Since(begin)
	t.note = fmt.Sprintf("DEL of the chain took %v", took.Round(time.Millisecond))
	if took > delBound {
		return fmt.Errorf("DEL took %v", took)
	}
	if err := t.gone(b, outer); err != nil {
		return err
	}
	if err := start(t.ctx); err != nil {
		return err
	}
	if atLeast(t.net.version, "1.1.0") {
		err = t.gc(t.net, stays)
	} else {
		err = t.del(b)
	}
	return errors.Join(err, t.portless(outer...), t.fits(stays))
}

// vars are names of a box's things, for scripts.
func (t *try) vars(b *box) (string, error) {
	br, port := b.result.Interfaces[0].Name, b.result.Interfaces[1].Name
	// Tunnels are on a bridge of their own where the segment has them apart.
	out, err := t.output(`for i in $(ovs-vsctl --timeout=30 list-ifaces ` + br + `; ovs-vsctl --timeout=30 list-ifaces ` + br + `-t 2>/dev/null); do
	[ -z "$(ovs-vsctl --timeout=30 --if-exists get interface $i options:remote_ip)" ] || echo $i; done; ovs-vsctl --timeout=30 get bridge ` + br + ` datapath_type`)
	f := strings.Fields(out)
	if err == nil && len(f) < 2 {
		err = fmt.Errorf("no tunnel on %s or %[1]s-t: %q", br, out)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("set -e; br=%s port=%s tunnel=%s datapath=%s network=%s\n", br, port, f[0], f[len(f)-1], b.net.name), nil
}
