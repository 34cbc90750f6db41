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

// A Target is an address to ask, and the one of this host to ask it from.
type Target struct {
	// Name is the caller's, and the key of the results.
	Name     string
	To, From netip.Addr
}

// A Pace says how often a Meter asks.
type Pace struct {
	// Period is the time between two requests to one target, but for the first
	// three to it: they are a second apart at most, so that there soon is a result.
	Period time.Duration
	// Gap is the least time between any two requests: with many targets the
	// period is as long as that makes it.
	Gap time.Duration
	// Rounds is after how many requests to each target Run ends; 0 is never.
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
	// patience is how long an answer may take; what comes later counts as lost.
	patience = 2 * time.Second
	// silent is how many of the last requests went unanswered where a target is
	// taken for unreachable.
	silent = 3
)

// A Result is how the last requests to a target went, at most Window of them. A
// request that is not answered yet and may still be is none of them.
type Result struct {
	Sent, Lost int
	// RTT is the median round trip of those that were answered; 0 where none was.
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

// A Meter asks targets and keeps the results of the last requests. The zero
// value is one that has asked nobody. Its methods may be called from several
// goroutines at once, but Run from one.
type Meter struct {
	// Answered is called for each request that was answered, with the round trip,
	// and for each that was lost, with 0. nil is nobody.
	Answered func(rtt time.Duration)

	mu        sync.Mutex
	histories map[string]*history
	pending   map[uint64]request
	// oldest is the number of the oldest request that may be pending, next the
	// number of the next one.
	oldest, next uint64
}

// A request is one that waits for its answer.
type request struct {
	name string
	at   time.Time
}

// Run asks the targets in turn, at a pace, until ctx ends or the rounds are
// over. targets is called before each round. The error says why this host
// cannot ask at all, and wraps os.ErrPermission where it may not.
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

// ask sends a request. One that cannot be sent, for want of a socket or a
// route, is lost.
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

// read takes answers until the socket is closed.
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

// end notes the result of a request; a round trip of 0 is none.
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

// expire gives up requests whose answers would come too late.
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

// young reports whether a target has been asked less than three times, or there
// is none.
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

// forget drops the results of targets that are asked no more.
func (m *Meter) forget(but []Target) {
	asked := make(map[string]bool, len(but))
	for _, t := range but {
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

// Results are how it went, by the targets' names. A target that has not been
// asked yet is not among them.
func (m *Meter) Results() map[string]Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]Result, len(m.histories))
	for name, h := range m.histories {
		all[name] = h.result()
	}
	return all
}
