package ping

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"ovs-gre-cni/pkg/icmp"
)

// An Echo is an ICMP echo request and its result.
type Echo struct {
	// To is the destination.
	To netip.Addr
	// From is the source address; the zero Addr leaves it to the kernel.
	From netip.Addr
	// Size is that of the whole IP packet in bytes, which is never fragmented; 0 is
	// the smallest possible.
	Size int
	// At is when the request is sent, counted from the call of Exchange.
	At time.Duration
	// Answered tells whether a reply came, RTT how long that took.
	Answered bool
	RTT      time.Duration
	// of is the echo that this is a repetition of; nil is none.
	of *Echo
}

// Pause is how long Ask waits for a reply to the last request.
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

// Exchange sends each echo request once, at its time At, and sets Answered and RTT. It returns
// when all are answered, or wait after the last was sent. A request that cannot be sent,
// because there is no route or it is too large, counts as not answered. The error is about a
// socket, such as EPERM without CAP_NET_RAW.
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

// A batch has the echo requests of one family.
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
	stop() // requests that are not sent yet are not needed
	sender.Wait()
}

// whose is the echo that a reply to e counts for.
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

// receive waits for the next reply and returns the echo that it answers; nil for a second
// reply to it, or if no reply comes for 50 ms.
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

// until waits until t. It reports false if ctx ends before.
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
