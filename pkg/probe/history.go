package probe

import (
	"slices"
	"time"
)

// A history is the round trips of the last requests to a target, 0 for one
// that was lost. last is the place of the newest.
type history struct {
	trips []time.Duration
	last  int
}

func (h *history) add(rtt time.Duration) {
	if len(h.trips) < Window {
		h.trips = append(h.trips, rtt)
		h.last = len(h.trips) - 1
		return
	}
	h.last = (h.last + 1) % Window
	h.trips[h.last] = rtt
}

func (h *history) result() Result {
	r := Result{Sent: len(h.trips)}
	var answered []time.Duration
	for _, rtt := range h.trips {
		if rtt == 0 {
			r.Lost++
		} else {
			answered = append(answered, rtt)
		}
	}
	slices.Sort(answered)
	if len(answered) > 0 {
		r.RTT = answered[len(answered)/2]
	}
	r.Silent = len(h.trips) >= silent
	for i := range min(silent, len(h.trips)) {
		if h.trips[(h.last-i+len(h.trips))%len(h.trips)] != 0 {
			r.Silent = false
		}
	}
	return r
}
