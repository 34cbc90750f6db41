package probe

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"sync"
	"time"

	"ovs-gre-cni/pkg/icmp"
)

// A Target is an address to send echo requests to.
type Target struct {
	// Name is the key of the target's Result.
	Name string
	// To is the address, From this host's source address; both are of one family.
	To, From netip.Addr
}

// A Pace says how often a Meter sends requests.
type Pace struct {
	// Period is the time between two requests to one target. The first three to a new
	// target are a second apart at most, so that it has a Result soon.
	Period time.Duration
	// Gap is the least time between two requests to any targets. With many targets it
	// makes the period longer.
	Gap time.Duration
	// Rounds is how many requests Run sends to each target; 0 is no limit.
	Rounds int
}

// Slow is the pace of a daemon: each target every five seconds, and with more
// than 250 of them 50 requests a second, of 48 bytes each.
var Slow = Pace{Period: 5 * time.Second, Gap: 20 * time.Millisecond}

// Quick is the pace of a command that somebody waits for: five requests to each
// target within a second, where they are not more than 200.
var Quick = Pace{Period: 200 * time.Millisecond, Gap: time.Millisecond, Rounds: 5}

const (
	// Window is how many of the last requests to a target a Result is about.
	Window = 20
	// patience is how long a reply may take; a request with a later one counts as lost.
	patience = 2 * time.Second
	// silent is how many requests in a row are lost when a target counts as Silent.
	silent = 3
)

// A Result is about the last requests to a target, at most Window of them, without those
// that still wait for a reply.
type Result struct {
	// Sent counts the requests, Lost those of them without a reply in time.
	Sent, Lost int
	// RTT is the median round trip of the answered requests; 0 is none.
	RTT time.Duration
	// Silent: none of the last three requests was answered.
	Silent bool
}

// Loss is the share of requests that were lost, from 0 to 1.
func (r Result) Loss() float64 {
	if r.Sent == 0 {
		return 0
	}
	return float64(r.Lost) / float64(r.Sent)
}

// A Meter sends requests to targets and keeps the results of the last ones. The zero
// value has sent none. Its methods may be called from several goroutines at once, but
// Run from one.
type Meter struct {
	// Answered is called for each answered request with the round trip, and for each
	// lost one with 0; nil is not called.
	Answered func(rtt time.Duration)

	mu        sync.Mutex
	histories map[string]*history
	pending   map[uint64]request
	// oldest is the number of the oldest request that may be pending, next that of the
	// next request.
	oldest, next uint64
}

// A request is an echo request to the target name, which waits for its reply.
type request struct {
	name string
	at   time.Time
}

// Run sends requests to the targets in turn, at a pace, until ctx ends or the rounds are
// over. It calls targets before each round. The error is about this host, which cannot
// send any request, and wraps os.ErrPermission.
func (m *Meter) Run(ctx context.Context, pace Pace, targets func() []Target) error {
	sockets := map[netip.Addr]*icmp.Socket{}
	var readers sync.WaitGroup
	defer readers.Wait()
	defer func() {
		for _, s := range sockets {
			s.Close()
		}
	}()
	for round := 0; pace.Rounds == 0 || round < pace.Rounds; round++ {
		list := targets()
		m.forget(list)
		began, period := time.Now(), pace.Period
		if m.young(list) {
			period = min(period, time.Second)
		}
		for _, t := range list {
			s := sockets[t.From]
			if s == nil {
				var err error
				if s, err = icmp.Open(t.From.Is6(), t.From); errors.Is(err, os.ErrPermission) {
					return err
				} else if err == nil {
					sockets[t.From] = s
					readers.Go(func() { m.read(s) })
				}
			}
			m.ask(s, t)
			if !wait(ctx, max(pace.Gap, period/time.Duration(len(list)))) {
				return nil
			}
		}
		if !wait(ctx, period-time.Since(began)) {
			return nil
		}
	}
	for end := time.Now().Add(patience); m.waiting() && time.Now().Before(end) && wait(ctx, 10*time.Millisecond); {
		m.expire(time.Now())
	}
	m.expire(time.Now().Add(patience))
	return nil
}

// wait waits, and reports whether ctx is still good.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// ask sends a request. One that cannot be sent, without a socket or a route, counts as
// lost.
func (m *Meter) ask(s *icmp.Socket, t Target) {
	now := time.Now()
	m.expire(now)
	m.mu.Lock()
	number := m.next
	m.next++
	if m.pending == nil {
		m.pending, m.histories = map[uint64]request{}, map[string]*history{}
	}
	m.pending[number] = request{t.Name, now}
	m.mu.Unlock()
	if s == nil || s.Send(icmp.Request{To: t.To, Number: number}) != nil {
		m.end(number, 0)
	}
}

// read reads replies until the socket is closed.
func (m *Meter) read(s *icmp.Socket) {
	for {
		number, err := s.Receive(time.Time{})
		if err != nil {
			return
		}
		m.answered(number, time.Now())
	}
}

func (m *Meter) answered(number uint64, now time.Time) {
	m.mu.Lock()
	r, ok := m.pending[number]
	m.mu.Unlock()
	if ok {
		m.end(number, max(now.Sub(r.at), time.Nanosecond))
	}
}

// end records the result of a request; a round trip of 0 means that it was lost.
func (m *Meter) end(number uint64, rtt time.Duration) {
	m.mu.Lock()
	r, ok := m.pending[number]
	delete(m.pending, number)
	if ok {
		h := m.histories[r.name]
		if h == nil {
			h = &history{}
			m.histories[r.name] = h
		}
		h.add(rtt)
	}
	m.mu.Unlock()
	if ok && m.Answered != nil {
		m.Answered(rtt)
	}
}

// expire counts requests as lost whose replies would come too late.
func (m *Meter) expire(now time.Time) {
	for {
		m.mu.Lock()
		number := m.oldest
		r, ok := m.pending[number]
		over := number >= m.next || ok && now.Sub(r.at) < patience
		if !over {
			m.oldest++
		}
		m.mu.Unlock()
		if over {
			return
		}
		if ok {
			m.end(number, 0)
		}
	}
}

func (m *Meter) waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pending) > 0
}

// young reports whether a target was asked less than three times, or there is no target.
func (m *Meter) young(list []Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range list {
		if h := m.histories[t.Name]; h == nil || len(h.trips) < silent {
			return true
		}
	}
	return len(list) == 0
}

// forget removes the results of all targets that are not in kept.
func (m *Meter) forget(kept []Target) {
	asked := make(map[string]bool, len(kept))
	for _, t := range kept {
		asked[t.Name] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.histories {
		if !asked[name] {
			delete(m.histories, name)
		}
	}
}

// Results returns the results by the targets' names. A target without a request that was
// answered or lost has none.
func (m *Meter) Results() map[string]Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]Result, len(m.histories))
	for name, h := range m.histories {
		all[name] = h.result()
	}
	return all
}
