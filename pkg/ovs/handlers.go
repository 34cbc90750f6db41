package ovs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ovn-org/libovsdb/ovsdb"
	"golang.org/x/sys/unix"
)

// ErrNoHandlers is wrapped by errors about an ovs-vswitchd that runs and answers, but
// takes no packets from the kernel's datapath, so that all traffic is lost.
//
// OVS 3.1.0 counts 0 processors until ten seconds after boot (count_cpu_cores in
// lib/ovs-thread.c of OVS, fixed in 3.1.1). On a host with one or two processors it
// opens the kernel's datapath with 0 handlers. The threads that it starts after the
// ten seconds get no sockets (dpif_netlink_handlers_set in lib/dpif-netlink.c), so
// that it never reads from the datapath until that is opened again.
var ErrNoHandlers = errors.New("ovs-vswitchd takes no packets from the kernel: it was started less than ten seconds after boot")

const (
	// counted is how long after boot OVS counts no processors.
	counted = 10 * time.Second
	// miscounts is the version of OVS that has the defect.
	miscounts = "3.1.0"
)

// noHandlers returns an error that wraps ErrNoHandlers if ovs-vswitchd was started in
// the first seconds after boot and has taken no packet since. If it was started
// later, noHandlers only reads the time of a file.
func noHandlers(ctx context.Context, socket string) error {
	if !startedEarly(socket) {
		return nil
	}
	missed, lost, err := upcalls(ctx, socket)
	if err == nil && missed > 0 && lost == missed {
		err = fmt.Errorf("%w: %w (%d of %d packets were lost)", ErrUnavailable, ErrNoHandlers, lost, missed)
	}
	return err
}

// upcalls counts the packets that the kernel had for ovs-vswitchd, and those of them
// that it did not take.
func upcalls(ctx context.Context, socket string) (missed, lost uint64, err error) {
	list, err := Lookups(ctx, socket)
	for _, l := range list {
		if strings.HasPrefix(l.Name, "system@") {
			missed, lost = missed+l.Missed, lost+l.Lost
		}
	}
	return missed, lost, err
}

// startedEarly reports whether ovs-vswitchd was started in the first ten seconds
// after boot, by the time of its pidfile. It may also be true of a later start if the
// host's clock was set since.
func startedEarly(socket string) bool {
	info, err := os.Stat(filepath.Join(filepath.Dir(socket), vswitchd+".pid"))
	return err == nil && info.ModTime().Before(time.Now().Add(counted-since(unix.CLOCK_BOOTTIME)))
}

func since(clock int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(clock, &t) // never fails with the clocks used here
	return time.Duration(t.Nano())
}

// EnsureHandlers waits until the ten seconds are over in which ovs-vswitchd 3.1.0
// would open the kernel's datapath with 0 handlers, and makes one that has done so
// open it again. That makes the links of all kernel bridges again, without their
// addresses, so it is done only where all of them are ours. With other versions, and
// later after boot, it does nothing. The error wraps ErrUnavailable, and
// ErrNoHandlers where there is a bridge that is not ours: ovs-vswitchd must be
// restarted then.
func (c *Conn) EnsureHandlers(ctx context.Context) error {
	if !startedEarly(c.path) && since(unix.CLOCK_MONOTONIC) > counted {
		return nil
	}
	version, err := VswitchdVersion(ctx, c.path)
	if err != nil || !strings.HasSuffix(version, " "+miscounts) {
		return err
	}
	select {
	case <-time.After(counted + 100*time.Millisecond - since(unix.CLOCK_MONOTONIC)):
	case <-ctx.Done():
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrNoHandlers, ctx.Err())
	}
	missed, lost, err := upcalls(ctx, c.path)
	if err != nil || lost < missed || !startedEarly(c.path) {
		return err
	}
	return c.reopen(ctx)
}

// reopen makes ovs-vswitchd close the kernel's datapath and open it again: all
// bridges go to the userspace datapath and then back.
func (c *Conn) reopen(ctx context.Context) error {
	res, err := c.Transact(ctx, selectOp("Bridge", nil, "_uuid", "name", "datapath_type", "external_ids"))
	if err != nil {
		return err
	}
	var away, back []ovsdb.Operation
	for _, r := range res[0].Rows {
		was := r.str("datapath_type")
		if was == "netdev" {
			continue
		}
		if r.strings("external_ids")[keyNetwork] == "" {
			return fmt.Errorf("%w: %w: OVS bridge %s is not ours: restart ovs-vswitchd", ErrUnavailable, ErrNoHandlers, r.str("name"))
		}
		set := func(typ string) ovsdb.Operation {
			return ovsdb.Operation{Op: ovsdb.OperationUpdate, Table: "Bridge", Where: where("_uuid", ovsdb.ConditionEqual, uuidOf(r.uuid("_uuid"))),
				Row: ovsdb.Row{"datapath_type": typ}}
		}
		away, back = append(away, set("netdev")), append(back, set(was))
	}
	if len(away) == 0 {
		return nil
	}
	if err := c.commit(ctx, away); err != nil {
		return errors.Join(err, c.commit(context.WithoutCancel(ctx), back))
	}
	return c.commit(ctx, back)
}
