package rundir_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/pkg/fault"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/rundir"
)

// testDir is the directory of a network that nobody has.
func testDir(t *testing.T) rundir.Dir {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, to write to " + rundir.RunDir)
		}
		t.Skip("needs root, to write to " + rundir.RunDir)
	}
	d := rundir.NetworkDir(fmt.Sprintf("lease-test-%d", os.Getpid()))
	t.Cleanup(func() { _ = d.Remove() })
	return d
}

// TestLockInVain gives up waiting for a lock in a process that lives on: what
// it waited for must be free for others once its holder gives it back.
func TestLockInVain(t *testing.T) {
	d := testDir(t)
	bg := context.Background()
	unlock, err := d.Lock(bg, false)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		short, cancel := context.WithTimeout(bg, 20*time.Millisecond)
		if _, err := d.Lock(short, false); !errors.Is(err, fault.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a lock that is held: %v", err)
		}
		cancel()
	}
	unlock()
	within, cancel := context.WithTimeout(bg, time.Minute)
	defer cancel()
	if unlock, err = d.Lock(within, false); err != nil {
		t.Fatalf("a lock that is free again: %v", err)
	}
	unlock()
}

// TestTakeOver has a second ADD come for a lease that is held: it waits without
// the network's lock, empties nothing, and never holds a file that is gone.
func TestTakeOver(t *testing.T) {
	d := testDir(t)
	l := rundir.Lease{Name: "p1", Attachment: config.Attachment{ContainerID: "c1", IfName: "eth0"}}
	bg := context.Background()
	_, done, err := d.Acquire(bg, rundir.LeasesOVS, l)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	if _, _, err := d.Acquire(short, rundir.LeasesOVS, l); !errors.Is(err, fault.ErrBusy) || rundir.MayHaveAcquired(err) {
		t.Fatalf("second Take: %v", err)
	}
	if _, ok, err := d.TryLockLease(rundir.LeasesOVS, "p1"); ok || err != nil {
		t.Fatalf("idle: %t, %v", ok, err)
	}
	second := make(chan error, 1)
	go func() {
		_, done, err := d.Acquire(bg, rundir.LeasesOVS, l)
		if err == nil {
			defer done()
		}
		second <- err
	}()
	time.Sleep(50 * time.Millisecond) //nolint:forbidigo // a second call that waits shows nothing; too short a time fails no test
	unlock, err := d.Lock(bg, false)  // whoever holds the lease may want it
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if list, err := d.Leases(rundir.LeasesOVS); err != nil || len(list) != 1 || list[0].Attachment != l.Attachment || !list[0].Busy {
		t.Fatalf("leases: %+v, %v", list, err)
	}
	if err := d.Release(rundir.LeasesOVS, "p1"); err != nil {
		t.Fatal(err)
	}
	done()
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if list, err := d.Leases(rundir.LeasesOVS); err != nil || len(list) != 1 || list[0].Attachment != l.Attachment {
		t.Fatalf("leases after the take-over: %+v, %v", list, err)
	}
}

// TestNoDir: the name of no network is no path, whatever is done with its
// directory (hostile.md row 15).
func TestNoDir(t *testing.T) {
	testDir(t)
	victim := filepath.Join(rundir.RunDir, "..", fmt.Sprintf("victim-%d", os.Getpid()))
	if err := os.MkdirAll(filepath.Join(victim, rundir.LeasesOVS), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(victim) })
	if err := os.WriteFile(filepath.Join(victim, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, name := range []string{"../" + filepath.Base(victim), "", ".", "..", "a/b", "/etc", strings.Repeat("x", 201)} {
		d := rundir.NetworkDir(name)
		_, lock := d.Lock(ctx, false)
		_, _, take := d.Acquire(ctx, rundir.LeasesOVS, rundir.Lease{Name: "x"})
		_, _, idle := d.TryLockLease(rundir.LeasesOVS, "x")
		_, holds := d.HasLease(rundir.LeasesOVS, "x")
		_, leases := d.Leases(rundir.LeasesOVS)
		_, unused := d.Unused(rundir.LeasesOVS)
		_, _, handed := d.SavedNodes()
		for what, err := range map[string]error{
			"Lock": lock, "Take": take, "Idle": idle, "Holds": holds, "Leases": leases, "Unused": unused, "Handed": handed,
			"Remove": d.Remove(), "Abandon": d.RemoveIfUnused(ctx), "Drop": d.RemoveConfig(), "Release": d.Release(rundir.LeasesOVS, "x"), "Bury": d.AddPendingRemoval("x"),
			"Hand": d.Save(nil, "a", []byte("{}")), "HandRoutes": d.SaveRoutesConfig([]byte("{}")),
			"SetPersistent": d.SetPersistent(true), "SetPersistent off": d.SetPersistent(false), "SetMark": d.SetMark("x"),
		} {
			if !errors.Is(err, config.ErrInvalid) {
				t.Errorf("%q: %s: %v", name, what, err)
			}
		}
		d.ClearPendingRemovals("x")
		if d.Exists() || d.Persistent() || d.SavedConfig() != nil || d.SavedRoutesConfig() != nil || d.PendingRemovals() != nil || d.Mark() != "" || d.IsSaved(nodes.Topology{}, nil) {
			t.Errorf("%q: something is there", name)
		}
	}
	if _, err := os.Stat(filepath.Join(victim, "config.json")); err != nil {
		t.Error(err)
	}
}
