package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"ovs-gre-cni/pkg/cni"
	"ovs-gre-cni/pkg/config"
	"ovs-gre-cni/test/cnitest"
)

const (
	soakSeed    = 20
	soakWorkers = 20 // on both hosts together
)

// TestSoak attaches and takes off containers on two hosts, many at a time. Some
// of the calls are killed wherever they happen to be, and cleaned up after by DEL
// or GC. Now and then ovs-vswitchd, ovsdb-server or both are killed and started
// again; what fails while they are away is called again, as a runtime does. At
// the end every worker has a container that lives. OVSGRE_SOAK is how many
// containers are attached.
func TestSoak(t *testing.T) {
	suite := count("soak")
	total := 100
	if text := os.Getenv("OVSGRE_SOAK"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	hosts := newSoak(t)
	t.Logf("seed %d", soakSeed)
	begin := time.Now()
	var left atomic.Int32
	left.Store(int32(total))
	done := make(chan struct{})
	outages := make(chan error, len(hosts))
	for i, h := range hosts {
		// Each host's Open vSwitch is killed some five times in a short soak, a hundred
		// in one of 10,000.
		every := int32(max(10, total/100/len(hosts)))
		go func() { outages <- h.outages(rand.New(rand.NewPCG(soakSeed, uint64(1000+i))), i, every, done) }()
	}
	_ = atOnce(soakWorkers, func(w int) error {
		h, random := hosts[w%len(hosts)], rand.New(rand.NewPCG(soakSeed, uint64(w)))
		pair := h.pairs[w/len(hosts)]
		for n := total - int(left.Add(-1)); n <= total; n = total - int(left.Add(-1)) {
			if n%1000 == 0 {
				fmt.Printf("faults: soak: %d of %d after %v\n", n, total, time.Since(begin).Round(time.Second))
			}
			suite.point(t, fmt.Sprintf("%d (%s)", n, pair.next.id), h.turn(t, pair, random))
		}
		return nil
	})
	close(done)
	for range hosts {
		suite.point(t, "Open vSwitch killed and started", <-outages)
	}
	s := sum(hosts)
	suite.note("%d attachments on %d hosts at a concurrency of %d in %v", total, len(hosts), soakWorkers, time.Since(begin).Round(time.Second))
	suite.note("%d calls killed, %d of them left to GC", s.killed, s.collected)
	suite.note("ovs-vswitchd killed %d times, ovsdb-server %d times", s.vswitchd, s.ovsdb)
	suite.note("%d calls refused meanwhile, %d out of time", s.refused, s.late)
	if s.killed == 0 || s.vswitchd == 0 || s.ovsdb == 0 {
		t.Error("not everything was killed")
	}
	soakEnd(t, suite, hosts)
}

// soakCounts are what the soak prints.
type soakCounts struct {
	killed, collected, refused, late, vswitchd, ovsdb int32
}

func sum(hosts []*soakHost) (s soakCounts) {
	for _, h := range hosts {
		s.killed += h.killed.Load()
		s.collected += h.collected.Load()
		s.refused += h.refused.Load()
		s.late += h.late.Load()
		s.vswitchd += h.vswitchd.Load()
		s.ovsdb += h.ovsdb.Load()
	}
	return s
}

// A soakHost is a host of the soak: the victim of each call is a worker's.
type soakHost struct {
	*stage
	pairs []*soakPair
	all   []*box // of the pairs
	// attached counts containers that came, killed and collected calls that were
	// killed and left to GC, refused those that failed while a daemon was away, late
	// those that ran out of time; vswitchd and ovsdb count the kills of each.
	attached, killed, collected, refused, late, vswitchd, ovsdb atomic.Int32
	// away is odd while a daemon of Open vSwitch is away.
	away atomic.Int32
}

// A soakPair is a worker's: one container lives while the next one comes.
type soakPair struct{ lives, next *box }

// newSoak is two hosts with a container each that stays, and the workers' namespaces.
func newSoak(t *testing.T) []*soakHost {
	t.Helper()
	l := lab(t, 2)
	var hosts []*soakHost
	for i := range l.Hosts {
		h := &soakHost{stage: &stage{rig: newRig(l, i, cnitest.Network{})}}
		stays := h.box(t, "stays")
		if err := h.add(t, stays); err != nil {
			t.Fatal(err)
		}
		h.stay = []*box{stays}
		for w := range soakWorkers / len(l.Hosts) {
			p := &soakPair{h.box(t, fmt.Sprintf("a%d", w)), h.box(t, fmt.Sprintf("b%d", w))}
			h.pairs, h.all = append(h.pairs, p), append(h.all, p.lives, p.next)
		}
		hosts = append(hosts, h)
	}
	for i, h := range hosts {
		h.peer = hosts[1-i].stay[0]
		h.before = cnitest.MustLook(t, h.h)
	}
	return hosts
}

// soakEnd looks at what lives, takes it off, and wants nothing left.
func soakEnd(t *testing.T, suite *suite, hosts []*soakHost) {
	for i, h := range hosts {
		other := hosts[1-i]
		for w, p := range h.pairs {
			for _, to := range []*box{other.pairs[w].lives, other.stay[0]} {
				if p.lives.prev != "" && to.prev != "" {
					suite.point(t, fmt.Sprintf("%s: %s reaches %s", h.h.Name, p.lives.id, to.id), errors.Join(h.check(t, p.lives), h.ping(p.lives, to)))
				}
			}
		}
		suite.point(t, h.h.Name+": the container that stays", errors.Join(h.check(t, h.stay[0]), h.ping(h.stay[0], h.peer)))
	}
	for _, h := range hosts {
		for _, p := range h.pairs {
			suite.point(t, h.h.Name+": "+p.lives.id, h.take(t, p.lives))
		}
	}
	for _, h := range hosts {
		suite.point(t, h.h.Name+": nothing left", errors.Join(h.gc(t, h.stay...), h.before.Settled(h.h)))
	}
}

// outages kills daemons of Open vSwitch, on average each time that so many
// containers have come, and starts them again after some calls were refused,
// until done. The first kill is of ovs-vswitchd, ovsdb-server or both.
func (h *soakHost) outages(random *rand.Rand, first int, every int32, done <-chan struct{}) error {
	for n := first; ; n++ {
		if !reaches(&h.attached, every/2+random.Int32N(every), done) {
			return nil
		}
		h.away.Add(1)
		var err error
		if n%3 != 1 {
			h.vswitchd.Add(1)
			err = h.h.KillVswitchd(context.Background())
		}
		if n%3 != 0 {
			h.ovsdb.Add(1)
			err = errors.Join(err, h.h.KillOVSDB(context.Background()))
		}
		reaches(&h.refused, 1+random.Int32N(10), done)
		err = errors.Join(err, h.h.StartOVS(context.Background()))
		h.away.Add(1)
		if err != nil {
			return err
		}
	}
}

// reaches waits until a count has grown by n, or all is done.
func reaches(count *atomic.Int32, n int32, done <-chan struct{}) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for until := count.Load() + n; count.Load() < until; {
		select {
		case <-done:
			return false
		case <-tick.C:
		}
	}
	return true
}

// turn attaches a worker's next container and takes off the one that lives.
func (h *soakHost) turn(t *testing.T, p *soakPair, random *rand.Rand) error {
	var err error
	switch dice := random.IntN(20); {
	case dice < 2:
		err = h.disturb(t, p.next, "ovs-gre", "ADD", random)
	case dice == 2:
		err = h.disturb(t, p.next, "route-sync", "ADD", random)
	}
	if err != nil {
		return err
	}
	if err := h.insist(t, p.next, func() error { return h.add(t, p.next) }); err != nil {
		return err
	}
	h.attached.Add(1)
	if p.lives.prev != "" {
		if err := h.insist(t, nil, func() error { return told(h.check(t, p.lives)) }); err != nil {
			return fmt.Errorf("%s, which lived: %w", p.lives.id, err)
		}
		if random.IntN(10) == 0 {
			err = h.disturb(t, p.lives, "ovs-gre", "DEL", random)
		} else {
			err = h.take(t, p.lives)
		}
	}
	p.lives, p.next = p.next, p.lives
	return err
}

// insist makes a call until it works. It may fail while Open vSwitch is away,
// with the code that says so, or be late. An ADD that failed has left nothing of
// its container, and a DEL follows.
func (h *soakHost) insist(t *testing.T, added *box, call func() error) error {
	for {
		begin := h.away.Load()
		err := call()
		if err == nil {
			return nil
		}
		if err := h.refusal(err, begin); err != nil {
			return err
		}
		if added == nil {
			continue
		}
		if err := errors.Join(h.none(added), h.take(t, added), h.none(added)); err != nil {
			return err
		}
	}
}

// refusal is an error of a call that it may not have. begin is what away was when
// the call began.
func (h *soakHost) refusal(err error, begin int32) error {
	switch {
	case late(err):
		h.late.Add(1)
	case begin%2 == 0 && h.away.Load() == begin:
		return err
	default:
		if err := wantError(err, types.ErrTryAgainLater, "OVS"); err != nil {
			return err
		}
		h.refused.Add(1)
	}
	return nil
}

// late reports whether a call gave up by its own bound of time: behind a lock that
// a traced call holds for seconds, or on a machine with too much to do.
func late(err error) bool {
	return wantError(err, types.ErrTryAgainLater, "busy: another process holds the lock") == nil ||
		wantError(err, types.ErrTryAgainLater, "context deadline exceeded") == nil
}

// take takes a container off, which no state of Open vSwitch keeps DEL from.
func (h *soakHost) take(t *testing.T, b *box) error {
	for {
		err := h.del(t, b)
		if late(err) {
			h.late.Add(1)
			continue
		}
		b.prev = ""
		return err
	}
}

// told is CHECK's error where it says that ovs-vswitchd does not run: for CHECK
// that is one of the things that are not as they should be.
func told(err error) error {
	var e *types.Error
	if errors.As(err, &e) && e.Code == cni.Drift && strings.HasPrefix(e.Msg, "OVS is not available") {
		e.Code = types.ErrTryAgainLater
	}
	return err
}

// none wants no link and no address of a container.
func (h *soakHost) none(b *box) error {
	port := config.PortName(h.name, b.id, b.ifname)
	out, err := h.h.Output(context.Background(), "sh", "-c", `exec 2>/dev/null
ip -br link show dev "$1"
ip -n "$2" -br link show dev "$3"
grep -l "^$2[^0-9]*$" /var/lib/cni/networks/*/*
:`, "sh", port, b.id, b.ifname)
	if out = strings.TrimSpace(out); err == nil && out != "" {
		err = fmt.Errorf("%s has left %s", b.id, out)
	}
	return err
}

// disturb kills a call somewhere on its way, and cleans up after it by DEL or GC.
func (h *soakHost) disturb(t *testing.T, b *box, plugin, verb string, random *rand.Rand) error {
	mine := *h.stage // until is the victim's
	mine.victim = b
	if plugin == "route-sync" {
		if err := h.insist(t, b, func() error { return mine.until(t, plugin, verb) }); err != nil {
			return err
		}
	}
	begin := h.away.Load()
	told, _, err := h.traced(t, plan{At: 1 + random.IntN(45), Only: changing}, plugin, verb, b, b.conf())
	switch {
	case told.Hit:
		h.killed.Add(1)
	case err != nil:
		if err := h.refusal(err, begin); err != nil {
			return err
		}
	}
	if verb == "ADD" {
		b.prev = ""
	}
	if !told.Hit || random.IntN(2) == 0 {
		return h.take(t, b)
	}
	// The runtime knows of all others, but not of this one.
	h.collected.Add(1)
	valid := slices.DeleteFunc(slices.Concat(h.stay, h.all), func(other *box) bool { return other == b })
	b.prev = ""
	return h.insist(t, nil, func() error { return h.gc(t, valid...) })
}
