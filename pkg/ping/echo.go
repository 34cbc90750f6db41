package ping

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"ovs-gre-cni/pkg/icmp"
)

// An Echo is an echo request, and whether it was answered.
type Echo struct {
	To netip.Addr
	// From is the source address, by which policy rules may choose the way; the
	// zero Addr leaves it to the kernel.
	From netip.Addr
	// Size is that of the whole IP packet in bytes, which is never fragmented;
	// 0 is the least.
	Size int
	// At is when it is sent, from the beginning on.
	At time.Duration
	// Answered tells whether an answer came, RTT how long that took.
	Answered bool
	RTT      time.Duration
	// of is the echo that this is one try of; nil is none.
	of *Echo
}

// Pause is how long an answer may take.
const Pause = 700 * time.Millisecond

// Ask sends an echo again after again, and once more after that.
const (
	tries = 3
	again = 300 * time.Millisecond
)

// AskLongest is the most that Ask takes on a host that is not short of processors.
const AskLongest = (tries-1)*again + Pause

// Ask sends the echo requests, again where no answer comes, and fills in which
// were answered. It takes AskLongest at most.
func Ask(ctx context.Context, list []Echo) error {
	var all []Echo
	for try := range tries {
		for i := range list {
			e := list[i]
			e.At, e.of = time.Duration(try)*again, &list[i]
			all = append(all, e)
		}
	}
	return Exchange(ctx, all, Pause)
}

// Exchange sends each echo request once, at its time, and returns when all are
// answered, or wait after the last was sent. What cannot be sent, for want of a
// route or because it is too large, is not answered. The error is about a
// socket, as without CAP_NET_RAW.
func Exchange(ctx context.Context, list []Echo, wait time.Duration) error {
	var wg sync.WaitGroup
	var errs [2]error
	for i, v6 := range []bool{false, true} {
		var of []*Echo
		for i := range list {
			if list[i].To.Is6() == v6 {
				of = append(of, &list[i])
			}
		}
		if len(of) == 0 {
			continue
		}
		socket, err := icmp.Open(v6, netip.Addr{}) // here, not in a thread of another network namespace
		if err != nil {
			errs[i] = fmt.Errorf("ping: %w", err)
			continue
		}
		wg.Go(func() {
			defer socket.Close()
			exchange(ctx, socket, of, wait)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A batch is echo requests of one family on their way.
type batch struct {
	socket *icmp.Socket
	list   []*Echo

	mu   sync.Mutex
	sent []time.Time
}

func exchange(ctx context.Context, socket *icmp.Socket, list []*Echo, wait time.Duration) {
	b := &batch{socket: socket, list: list, sent: make([]time.Time, len(list))}
	began := time.Now()
	end := began
	left := map[*Echo]bool{}
	for _, e := range list {
		left[e.whose()] = true
		if t := began.Add(e.At + wait); t.After(end) {
			end = t
		}
	}
	ctx, stop := context.WithCancel(ctx)
	var sender sync.WaitGroup
	sender.Go(func() { b.send(ctx, began) })
	for len(left) > 0 && ctx.Err() == nil && time.Now().Before(end) {
		if e := b.receive(end); e != nil {
			delete(left, e)
		}
	}
	stop() // nobody waits for what is left to send
	sender.Wait()
}

// whose is the echo that an answer to e counts for.
func (e *Echo) whose() *Echo {
	if e.of != nil {
		return e.of
	}
	return e
}

func (b *batch) send(ctx context.Context, began time.Time) {
	for i, e := range b.list {
		if !until(ctx, began.Add(e.At)) {
			return
		}
		b.mu.Lock()
		b.sent[i] = time.Now()
		needless := e.whose().Answered
		b.mu.Unlock()
		if !needless {
			_ = b.socket.Send(icmp.Request{To: e.To, From: e.From, Number: uint64(i), Size: e.Size}) // else nobody answers
		}
	}
}

// receive waits for the next answer and returns the echo that it is the first
// one to; nil where there is none for a while.
func (b *batch) receive(end time.Time) *Echo {
	i, err := b.socket.Receive(time.Now().Add(min(max(time.Until(end), time.Millisecond), 50*time.Millisecond)))
	if err != nil || i >= uint64(len(b.list)) {
		return nil
	}
	now := time.Now()
	e := b.list[i].whose()
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Answered {
		return nil
	}
	e.Answered, e.RTT = true, now.Sub(b.sent[i])
	return e
}

// until waits for a time, and reports whether ctx has not ended before.
func until(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
