package agent

import (
	"net/netip"
	"testing"
	"time"
)

// TestAbsence: who is new goes out at once; who is stored after a while, unless
// there is no route to anybody.
func TestAbsence(t *testing.T) {
	s, now := unroutedSince{}, time.Now()
	old, fresh := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	known := map[netip.Addr]bool{old: true}
	for i, step := range []struct {
		after    time.Duration
		unrouted []netip.Addr
		others   bool
		old, new bool
	}{
		{0, []netip.Addr{old, fresh}, true, false, true},
		{unroutedGrace - time.Second, []netip.Addr{old, fresh}, true, false, true},
		{unroutedGrace, []netip.Addr{old, fresh}, false, false, true},
		{unroutedGrace, []netip.Addr{old, fresh}, true, true, true},
		{unroutedGrace + time.Second, nil, true, false, false},
		{unroutedGrace + 2*time.Second, []netip.Addr{old}, true, false, false},
	} {
		out := s.leaveOut(now.Add(step.after), step.unrouted, known, step.others)
		if out[old] != step.old || out[fresh] != step.new {
			t.Errorf("step %d: %v is out", i, out)
		}
	}
}

func TestHealthy(t *testing.T) {
	a := &Agent{}
	for _, tt := range []struct {
		began time.Time
		want  bool
	}{{time.Time{}, true}, {time.Now(), true}, {time.Now().Add(-2*passBound - time.Second), false}} {
		a.began = tt.began
		if err := a.Healthy(); (err == nil) != tt.want {
			t.Errorf("a pass began at %s: %v", tt.began, err)
		}
	}
}

// TestRetry: attempts get rarer, never rarer than lastRetry, and not at the
// same moments on all hosts.
func TestRetry(t *testing.T) {
	seen := map[time.Duration]bool{}
	for failures := 1; failures < 100; failures++ {
		d := retry(failures)
		most := lastRetry
		if failures < 7 {
			most = firstRetry << (failures - 1)
		}
		if d > most || d < most*3/4 {
			t.Errorf("after %d failures: %s, want up to %s", failures, d, most)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different times of 99", len(seen))
	}
}
