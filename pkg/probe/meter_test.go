package probe

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestHistory: a result is about the last requests alone.
func TestHistory(t *testing.T) {
	const ms = time.Millisecond
	many := func(n int, rtt time.Duration) (list []time.Duration) {
		for range n {
			list = append(list, rtt)
		}
		return list
	}
	for name, test := range map[string]struct {
		trips []time.Duration
		want  Result
	}{
		"none":            {nil, Result{}},
		"one lost":        {many(1, 0), Result{Sent: 1, Lost: 1}},
		"three lost":      {many(3, 0), Result{Sent: 3, Lost: 3, Silent: true}},
		"median":          {[]time.Duration{9 * ms, 1 * ms, 2 * ms}, Result{Sent: 3, RTT: 2 * ms}},
		"old ones forgot": {append(many(30, 0), many(20, ms)...), Result{Sent: 20, RTT: ms}},
		"gone":            {append(many(20, ms), 0, 0, 0), Result{Sent: 20, Lost: 3, RTT: ms, Silent: true}},
		"back":            {append(many(20, 0), ms), Result{Sent: 20, Lost: 19, RTT: ms}},
	} {
		var h history
		for _, rtt := range test.trips {
			h.add(rtt)
		}
		if diff := cmp.Diff(test.want, h.result()); diff != "" {
			t.Errorf("%s: -want +have:\n%s", name, diff)
		}
	}
}

// TestMeter asks this host itself, of both families, and one that has no route.
func TestMeter(t *testing.T) {
	loopback4, loopback6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	targets := []Target{
		{Name: "v4", To: loopback4, From: loopback4},
		{Name: "v6", To: loopback6, From: loopback6},
		// This host has no such address: there is no socket of it.
		{Name: "nowhere", To: loopback4, From: netip.MustParseAddr("192.0.2.1")},
	}
	answered, lost := 0, 0
	done := make(chan time.Duration, 100)
	m := Meter{Answered: func(rtt time.Duration) { done <- rtt }}
	if err := m.Run(context.Background(), Pace{Period: 10 * time.Millisecond, Rounds: 5}, func() []Target { return targets }); err != nil {
		t.Fatal(err)
	}
	close(done)
	for rtt := range done {
		if rtt > 0 {
			answered++
		} else {
			lost++
		}
	}
	results := m.Results()
	for _, name := range []string{"v4", "v6"} {
		if r := results[name]; r.Sent != 5 || r.Lost != 0 || r.RTT <= 0 || r.Silent {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := results["nowhere"]; r.Sent != 5 || r.Loss() != 1 || !r.Silent {
		t.Errorf("nowhere: %+v", r)
	}
	if answered != 10 || lost != 5 {
		t.Errorf("%d were told as answered and %d as lost, want 10 and 5", answered, lost)
	}
	m.Answered = nil
	// Who is asked no more is forgotten.
	if err := m.Run(context.Background(), Pace{Rounds: 1}, func() []Target { return targets[:1] }); err != nil {
		t.Fatal(err)
	}
	if r := m.Results(); len(r) != 1 {
		t.Errorf("results: %v, want those of v4 alone", r)
	}
}
