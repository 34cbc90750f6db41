package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"ovs-gre-cni/pkg/conflist"
	"ovs-gre-cni/pkg/nodes"
	"ovs-gre-cni/pkg/probe"
	"ovs-gre-cni/pkg/rundir"
)

// Options are what an agent is told.
type Options struct {
	// Source tells who the hosts are.
	Source Source
	// Node is the name of this host's node. Unless it is Sure, the node whose
	// address is this host's comes first.
	Node string
	Sure bool
	// Template is the conflist without what is the agent's to set.
	Template []byte
	// Conflist is the file to write.
	Conflist string
	// Store is the nodes file to keep.
	Store string
	// Resync is the time after which a pass is made although nothing happened.
	Resync time.Duration
	// Version is the agent's own, for metrics and the page.
	Version string
	// PeerPort is the port at which other agents tell their rows of the mesh; 0
	// is that they are not asked.
	PeerPort uint16
	Log      *slog.Logger
}

// An Agent keeps one network on this host.
type Agent struct {
	Options
	template *template
	// file is the chain as far as it is known without nodes.
	file    conflist.File
	trigger chan struct{}
	metrics *metrics
	meter   probe.Meter
	view    view
	told    toldRow
	// absent are the addresses without a route; the loop's alone.
	absent unroutedSince

	mu sync.Mutex
	// began is when the pass that is being made began; zero where none is.
	began time.Time
	// err is how the last pass ended.
	err error
	// done counts passes.
	done int
	// leftOut are the hosts that the source leaves out, and why.
	leftOut map[string]string
	last    outcome
}

// An outcome is what a pass was about.
type outcome struct {
	topology nodes.Topology
	file     conflist.File
	// sum tells whether two passes wanted the same.
	sum string
}

// New returns an agent. The error says what is wrong with the template.
func New(o Options) (*Agent, error) {
	t, err := parseTemplate(o.Template)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	raw, err := t.conflist(o.Store, "", "1.0.0")
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	f := conflist.Parse("template", raw)
	if f.Err != nil {
		return nil, f.Err
	}
	a := &Agent{Options: o, template: t, file: f, trigger: make(chan struct{}, 1), absent: unroutedSince{}}
	a.metrics = newMetrics(a)
	a.meter.Answered = a.metrics.probed
	return a, nil
}

const (
	// passBound is how long a pass may take. Thousands of tunnels take
	// ovs-vswitchd a while.
	passBound = time.Minute
	// gap is the least time between two passes, so that many events make few.
	gap = 200 * time.Millisecond
	// Failed passes are repeated after firstRetry, then after twice the time
	// before, up to lastRetry; events shorten that to eventRetry.
	firstRetry, lastRetry, eventRetry = 250 * time.Millisecond, 15 * time.Second, time.Second
)

// errRemoved says that what is mounted is not what the plugins use.
var errRemoved = errors.New("the directory was removed under this mount: a restart mounts the new one")

// Run makes passes until ctx ends: at once, after whatever happens, after
// Resync, and soon again after one that failed.
func (a *Agent) Run(ctx context.Context) error {
	// A plugin that finds the directory of the state empty removes it.
	if err := conflist.SetPersistent(ctx, a.file); err != nil {
		return err
	}
	var watches sync.WaitGroup
	defer watches.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.watch(ctx, &watches)
	watches.Go(func() { a.measure(ctx) })
	failures := 0
	for {
		err := a.runPass(ctx)
		if ctx.Err() != nil {
			return nil
		}
		rest, next := gap, a.Resync
		if err == nil || errors.Is(err, nodes.ErrNotReady) {
			failures = 0
		} else {
			if isRemoved(rundir.RunDir) {
				return fmt.Errorf("%s: %w", rundir.RunDir, errRemoved)
			}
			failures++
			next = min(next, retry(failures))
			rest = min(next, eventRetry)
		}
		if !wait(ctx, rest, nil) || !wait(ctx, next-rest, a.trigger) {
			return nil
		}
	}
}

// retry is the time after which to try again what has failed so many times.
func retry(failures int) time.Duration {
	d := min(firstRetry<<min(failures-1, 10), lastRetry)
	return d - time.Duration(rand.Int64N(int64(d)/4))
}

// wait waits, until something comes. It reports whether ctx is still good.
func wait(ctx context.Context, d time.Duration, something <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-something:
	case <-t.C:
	}
	return ctx.Err() == nil
}

// changed asks for a pass. One that is being made may be too late for what
// happened: another follows it.
func (a *Agent) changed() {
	select {
	case a.trigger <- struct{}{}:
	default: // somebody has asked already
	}
}

// runPass makes one pass and tells how it went.
func (a *Agent) runPass(run context.Context) error {
	ctx, cancel := context.WithTimeout(run, passBound)
	defer cancel()
	began := time.Now()
	a.mu.Lock()
	a.began = began
	was := a.err
	a.mu.Unlock()
	err := a.pass(ctx)
	if run.Err() != nil {
		return err // a pass that was broken off says nothing
	}
	a.metrics.passEnded(time.Since(began), err)
	a.mu.Lock()
	a.began, a.err = time.Time{}, err
	a.done++
	a.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		a.Log.Error("pass failed", "network", a.file.Name(), "error", err)
	case err == nil && was != nil:
		a.Log.Info("all is well again", "network", a.file.Name())
	}
	return err
}

// Healthy is nil while passes are being made: none hangs.
func (a *Agent) Healthy() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := time.Since(a.began); !a.began.IsZero() && d > 2*passBound {
		return fmt.Errorf("a pass takes %s already", d.Round(time.Second))
	}
	return nil
}

// Ready is nil where the last pass went well and the conflist is there.
func (a *Agent) Ready() error {
	a.mu.Lock()
	err, done := a.err, a.done
	a.mu.Unlock()
	if done == 0 {
		return errors.New("no pass is made yet")
	}
	if _, ok := readOurs(a.Conflist); err == nil && !ok {
		return fmt.Errorf("%s is not there yet", a.Conflist)
	}
	return err
}

// isRemoved reports whether a directory that is mounted here has been removed
// where it came from.
func isRemoved(dir string) bool {
	st, err := os.Stat(dir)
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0
}

// Conflist is the path of a conflist in a runtime's directory.
func Conflist(dir, name string) string { return filepath.Join(dir, filepath.Base(name)) }
